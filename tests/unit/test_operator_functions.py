"""The two functions behind the operators' API, run on the very events of `sam local invoke`, over fakes."""

import io
import json
from types import SimpleNamespace

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from ota_core.formats.paging import write_cursor
from ota_core.rules.operator_actions import Action, ActionRefused
from ota_core.runtime.continuation import Continuation
from ota_core.stores.operator_queries import UnknownDevice, UnknownRelease
from pg8000.exceptions import InterfaceError
from support.aws_calls import NotedCalls
from support.fakes import FakeCommands, FakeQueries
from support.functions import CONTEXT, load_handler, read_event

RELEASE_ID = "0123456789abcdef" * 2
CALLER = "arn:aws:iam::123456789012:user/operator"


@pytest.fixture
def operate(aws, monkeypatch):
    handler = load_handler("operate_releases", monkeypatch, API_SECRET="example")
    handler.QUERIES = queries = FakeQueries()
    handler.COMMANDS = commands = FakeCommands()

    def call(name, **changes):
        answered = handler.lambda_handler(read_event("operate_releases", name) | changes, CONTEXT)
        return SimpleNamespace(
            status=answered["statusCode"], wake=answered.get("wake"), body=json.loads(answered["body"])
        )

    def fail(error):
        queries.error = commands.error = error

    call.fail, call.commands = fail, commands
    call.asked = lambda: queries.asked or commands.asked
    return call


def query(**parameters):
    return {"queryStringParameters": parameters}


def body(text):
    return {"body": text if isinstance(text, str) else json.dumps(text)}


@pytest.mark.parametrize(
    ("name", "asked", "field"),
    [
        (
            "list_releases",
            ("list_releases", {"product": "demo-sensor", "state": "rolling_out", "before": None, "limit": 50}),
            "releases",
        ),
        ("describe_release", ("describe_release", RELEASE_ID, {}), "decisions"),
        ("describe_timeline", ("describe_timeline", RELEASE_ID, {}), "points"),
        ("describe_device", ("describe_device", "AA:BB:CC:DD:EE:FF", {"before": None, "limit": 50}), "history"),
        ("promote", ("act", RELEASE_ID, Action.PROMOTE, {"wave": 2, "caller": CALLER}), "allowed_actions"),
        ("abort", ("act", RELEASE_ID, Action.ABORT, {"wave": None, "caller": CALLER}), "allowed_actions"),
        ("replace_tags", ("replace_tags", "AA:BB:CC:DD:EE:FF", ["beta", "site=berlin"], {"caller": CALLER}), "tags"),
    ],
)
def test_request_is_done(operate, name, asked, field):
    answered = operate(name)
    assert answered.status == 200
    assert field in answered.body
    assert operate.asked() == asked


def test_failing_devices_are_asked_for(operate):
    operate("list_failing_devices")
    assert operate.asked()[2] == {"state": "failing", "after": None, "limit": 20}


def test_wake_is_handed_on_after_an_action(operate):
    assert operate("abort").wake == {"release_id": RELEASE_ID, "execution": "arn:e", "is_due": True}
    operate.commands.wake = None
    assert operate("abort").wake is None


@pytest.mark.parametrize(
    ("name", "cursor", "asked"),
    [
        ("list_releases", write_cursor("releases", 7), {"before": 7}),
        ("list_failing_devices", write_cursor("devices", "AA:BB:CC:DD:EE:FF"), {"after": "AA:BB:CC:DD:EE:FF"}),
    ],
)
def test_next_page_is_asked_for_by_its_cursor(operate, name, cursor, asked):
    assert operate(name, **query(after=cursor)).status == 200
    assert operate.asked()[-1].items() >= asked.items()


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        ("list_releases", query(states="failed"), "query_unknown"),
        ("abort", query(limit="1"), "query_unknown"),
        ("list_releases", query(limit="0"), "limit_invalid"),
        ("list_releases", query(limit="201"), "limit_invalid"),
        ("list_releases", query(limit="-1"), "limit_invalid"),
        ("list_releases", query(limit="²"), "limit_invalid"),
        ("list_releases", query(limit=""), "limit_invalid"),
        ("list_releases", query(state="lost"), "state_invalid"),
        ("list_releases", query(product="A\0"), "product_invalid"),
        ("list_releases", query(after="x"), "cursor_invalid"),
        ("list_releases", query(after=""), "cursor_invalid"),
        ("list_releases", query(after=write_cursor("devices", "AA:BB:CC:DD:EE:FF")), "cursor_invalid"),
        ("list_releases", query(after=write_cursor("releases", "7")), "cursor_invalid"),
        ("list_releases", query(after=write_cursor("releases", 2**63)), "cursor_invalid"),
        ("list_releases", query(after=write_cursor("releases", 1, 2)), "cursor_invalid"),
        ("list_failing_devices", query(after=write_cursor("devices", 7)), "cursor_invalid"),
        ("list_failing_devices", query(after=write_cursor("devices", "x")), "cursor_invalid"),
        ("list_failing_devices", query(state="fine"), "state_invalid"),
        ("describe_device", query(after=write_cursor("history", "2026-06-01T00:00:00", 1)), "cursor_invalid"),
        ("describe_device", query(after=write_cursor("history", "0001-01-01T00:00:00+14:00", 1)), "cursor_invalid"),
        ("describe_device", query(after=write_cursor("history", "now", 1)), "cursor_invalid"),
        ("describe_device", {"pathParameters": {"mac": "x"}}, "mac_invalid"),
        ("abort", body(""), "body_not_json"),
        ("abort", {"body": None}, "body_not_json"),
        ("abort", body([]), "body_not_json"),
        ("abort", body("\ud800"), "body_not_json"),
        ("abort", body({}), "action_invalid"),
        ("abort", body({"action": "explode"}), "action_invalid"),
        ("abort", body({"action": "abort", "wave": 2}), "wave_invalid"),
        ("promote", body({"action": "promote"}), "wave_invalid"),
        ("promote", body({"action": "promote", "wave": True}), "wave_invalid"),
        ("promote", body({"action": "promote", "wave": "2"}), "wave_invalid"),
        ("replace_tags", body({"tags": "beta"}), "tags_invalid"),
        ("replace_tags", body({}), "tags_invalid"),
        ("replace_tags", body({"tags": ["Beta"]}), "tags_invalid"),
        ("replace_tags", body({"tags": [1]}), "tags_invalid"),
        ("replace_tags", body({"tags": [f"t{number}" for number in range(51)]}), "tags_invalid"),
    ],
)
def test_malformed_request_is_refused_and_nothing_is_done(operate, name, changes, code):
    answered = operate(name, **changes)
    assert (answered.status, answered.body["code"]) == (400, code)
    assert operate.asked() is None


@pytest.mark.parametrize(
    ("error", "code"), [(UnknownRelease(RELEASE_ID), "release_unknown"), (UnknownDevice("x"), "device_unknown")]
)
def test_unknown_is_not_found(operate, error, code):
    operate.fail(error)
    answered = operate("describe_release")
    assert (answered.status, answered.body["code"]) == (404, code)


@pytest.mark.parametrize("release_id", ["", "x", RELEASE_ID.upper(), RELEASE_ID + "0", "a\0"])
def test_what_names_no_release_is_not_found(operate, release_id):
    answered = operate("describe_release", pathParameters={"release_id": release_id})
    assert (answered.status, answered.body["code"]) == (404, "release_unknown")
    assert operate.asked() is None


def test_path_of_nobody_is_not_found(operate):
    assert operate("describe_release", httpMethod="DELETE").status == 404


def test_action_that_the_state_forbids_is_a_conflict_that_tells_the_state(operate):
    operate.fail(ActionRefused("its rollout is over", "published"))
    answered = operate("abort")
    assert (answered.status, answered.body["code"], answered.body["state"]) == (409, "action_not_allowed", "published")
    assert answered.wake is None


def test_outage_of_the_database_is_told_as_one_that_passes(operate):
    operate.fail(InterfaceError("gone"))
    assert operate("abort").status == 503


@pytest.fixture
def api(aws, monkeypatch):
    handler = load_handler(
        "authorize_operator",
        monkeypatch,
        BUCKET="bucket",
        OPERATE_RELEASES_FUNCTION="operate",
        STATE_MACHINE_ARN="machine",
        API_SECRET="example",
    )
    step_functions = boto3.client("stepfunctions")
    handler.CONTINUATION = Continuation(step_functions, "machine")
    invocations = NotedCalls(
        handler.LAMBDA,
        Invoke=lambda: {"Payload": io.BytesIO(json.dumps(call.answer).encode()), **call.function_error},
    )

    def call(name="abort", **changes):
        return handler.lambda_handler(read_event("authorize_operator", name) | changes, CONTEXT)

    call.answer = {"statusCode": 200, "headers": {}, "body": "{}", "isBase64Encoded": False}
    call.function_error = {}
    call.passed_on = lambda: [json.loads(asked["Payload"]) for _, asked in invocations.calls]
    call.executions = NotedCalls(step_functions, StopExecution=dict, StartExecution=dict)
    return call


def test_request_is_passed_on_in_the_callers_name(api):
    assert api() == api.answer
    assert api.passed_on() == [read_event("operate_releases", "abort")]
    assert api.executions.calls == []


@pytest.mark.parametrize("status", [200, 409])
def test_every_request_is_logged_with_who_asked_for_what_and_the_answer(api, caplog, status):
    caplog.set_level("INFO")
    api.answer["statusCode"] = status
    api()
    [line] = caplog.records
    assert (line.getMessage(), line.caller, line.method, line.status) == ("operator asked", CALLER, "POST", status)
    assert line.path == f"/releases/{RELEASE_ID}/actions"


def test_execution_goes_on_where_the_answer_wants_it(api):
    wake = {"release_id": RELEASE_ID, "execution": "arn:e", "is_due": True}
    answered = api.answer
    api.answer = answered | {"wake": wake}
    assert api() == answered
    [(stopped, stop), (started, start)] = api.executions.calls
    assert (stopped, stop["executionArn"], started) == ("StopExecution", "arn:e", "StartExecution")
    assert json.loads(start["input"]) == {"registration": {"outcome": "continued", "release_id": RELEASE_ID}}


def test_action_is_to_be_repeated_where_no_execution_could_be_started(api):
    api.answer |= {"wake": {"release_id": RELEASE_ID, "execution": "arn:e", "is_due": True}}

    def fail():
        raise EndpointConnectionError(endpoint_url="x")

    api.executions.answers["StartExecution"] = fail
    assert api()["statusCode"] == 503


def test_failure_of_the_function_behind_is_told_without_its_trace(api):
    api.function_error = {"FunctionError": "Unhandled"}
    api.answer = {"errorMessage": "boom", "stackTrace": ["secret"]}
    answered = api()
    assert answered["statusCode"] == 500
    assert json.loads(answered["body"])["code"] == "operation_failed"
    assert "boom" not in answered["body"]


def in_groups(name, groups):
    """A console's event of a user whose groups API Gateway tells so."""
    context = read_event("authorize_operator", name)["requestContext"]
    claims = {**context["authorizer"]["claims"], "cognito:groups": groups}
    if groups is None:
        del claims["cognito:groups"]
    return {"requestContext": context | {"authorizer": {"claims": claims}}}


@pytest.mark.parametrize("groups", ["operator", "viewer,operator", "[viewer operator]", "[operator]"])
def test_operator_of_the_console_acts_in_his_own_name(api, groups):
    assert api("abort_from_console", **in_groups("abort_from_console", groups)) == api.answer
    [passed_on] = api.passed_on()
    assert passed_on == read_event("operate_releases", "abort") | {
        "stageVariables": read_event("authorize_operator", "abort_from_console")["stageVariables"],
        "caller": "cognito:ada:00000000-0000-4000-8000-0000000000aa",
    }


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        ("viewer", "not_an_operator"),
        ("[viewer]", "not_an_operator"),
        ("[viewer operators]", "not_an_operator"),
        ("", "not_in_group"),
        (None, "not_in_group"),
        ("co-operator", "not_in_group"),
    ],
)
def test_nobody_else_acts(api, groups, code):
    answered = api("abort_from_console", **in_groups("abort_from_console", groups))
    assert (answered["statusCode"], json.loads(answered["body"])["code"]) == (403, code)
    assert api.passed_on() == []


def test_viewer_looks(api):
    look = {"httpMethod": "GET", "resource": "/api/releases", "body": None}
    assert api("abort_from_console", **in_groups("abort_from_console", "viewer"), **look)["statusCode"] == 200
    assert [passed_on["resource"] for passed_on in api.passed_on()] == ["/releases"]


def test_nobody_without_an_identity_is_heard(api):
    context = read_event("authorize_operator", "abort")["requestContext"]
    context["identity"]["userArn"] = None
    assert api(requestContext=context)["statusCode"] == 403
    assert api.passed_on() == []


@pytest.mark.parametrize("variables", [None, {}, {"apiSecret": ""}, {"apiSecret": "guess"}, {"apiSecret": "examplé"}])
def test_whoever_invokes_a_function_directly_acts_in_nobodys_name(api, operate, caplog, variables):
    caplog.set_level("INFO")
    for name in ("abort", "abort_from_console", "list_rejected_drops"):
        answered = api(name, stageVariables=variables)
        assert (answered["statusCode"], json.loads(answered["body"])["code"]) == (403, "not_through_the_api")
    assert api.passed_on() == []
    assert {line.caller for line in caplog.records} == {"nobody"}
    answered = operate("abort", stageVariables=variables)
    assert (answered.status, answered.body["code"]) == (403, "not_through_the_api")
    assert operate.asked() is None


def test_rejected_drops_are_listed_without_the_database(api, s3):
    stems = {f"app{number}" for number in range(71)}
    for stem in stems:
        s3.put_object(Bucket="bucket", Key=f"rejected/{stem}.reason.json", Body=b"{}")
    # What the event asks for, and as many as there are in a page when nothing is asked for.
    first = json.loads(api("list_rejected_drops")["body"])
    second = json.loads(api("list_rejected_drops", **query(after=first["next"]))["body"])
    third = json.loads(api("list_rejected_drops", **query(after=second["next"], limit="2"))["body"])
    pages = [[drop["stem"] for drop in page["drops"]] for page in (first, second, third)]
    assert [len(page) for page in pages] == [20, 50, 1]
    assert {stem for page in pages for stem in page} == stems
    assert third["is_complete"]
    assert "next" not in third
    assert api.passed_on() == []


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"state": "failed"}, "query_unknown"),
        ({"limit": "0"}, "limit_invalid"),
        ({"after": write_cursor("rejected", "1", "0")}, "cursor_invalid"),
        ({"after": write_cursor("rejected", 1)}, "cursor_invalid"),
        ({"after": write_cursor("releases", 1, "0")}, "cursor_invalid"),
    ],
)
def test_malformed_request_for_rejected_drops_is_refused(api, parameters, code):
    answered = api("list_rejected_drops", **query(**parameters))
    assert (answered["statusCode"], json.loads(answered["body"])["code"]) == (400, code)
