"""The two functions behind the operators' API, run on the very events of `sam local invoke`, over fakes."""

import dataclasses
import io
import json
from types import SimpleNamespace

import pytest
from botocore.exceptions import EndpointConnectionError
from ota_core.formats.paging import write_cursor
from ota_core.rules.operator_actions import Action, ActionRefused
from ota_core.stores.operator_commands import Wake
from ota_core.stores.operator_queries import UnknownDevice, UnknownRelease
from pg8000.exceptions import InterfaceError
from support.functions import CONTEXT, load_handler, read_event

RELEASE_ID = "0123456789abcdef" * 2
CALLER = "arn:aws:iam::123456789012:user/operator"


class FakeStore:
    """Notes what it is asked; answers with its name, or fails with `error`."""

    def __init__(self):
        self.asked = None
        self.error = None
        self.wake = Wake(RELEASE_ID, "arn:e", is_due=True)

    def _answer(self, name, *arguments, **options):
        if self.error:
            raise self.error
        self.asked = (name, *arguments, options)
        return {"answered": name}

    def list_releases(self, **options):
        return self._answer("list_releases", **options)

    def describe_release(self, release_id):
        return self._answer("describe_release", release_id)

    def describe_timeline(self, release_id):
        return self._answer("describe_timeline", release_id)

    def list_devices(self, release_id, **options):
        return self._answer("list_devices", release_id, **options)

    def describe_device(self, mac, **options):
        return self._answer("describe_device", mac, **options)

    def replace_tags(self, mac, tags, **options):
        return self._answer("replace_tags", mac, tags, **options)

    def act(self, release_id, action, **options):
        return self._answer("act", release_id, action, **options), self.wake


@pytest.fixture
def operate(aws, monkeypatch):
    handler = load_handler("operate_releases", monkeypatch)
    store = FakeStore()
    handler.QUERIES = handler.COMMANDS = store

    def call(name, **changes):
        answered = handler.lambda_handler(read_event("operate_releases", name) | changes, CONTEXT)
        return SimpleNamespace(
            status=answered["statusCode"], wake=answered.get("wake"), body=json.loads(answered["body"])
        )

    call.store = store
    return call


def query(**parameters):
    return {"queryStringParameters": parameters}


def body(text):
    return {"body": text if isinstance(text, str) else json.dumps(text)}


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("list_releases", ("list_releases", {"product": "demo-sensor", "state": "rolling_out", "limit": 50})),
        ("describe_release", ("describe_release", RELEASE_ID, {})),
        ("describe_timeline", ("describe_timeline", RELEASE_ID, {})),
        ("describe_device", ("describe_device", "AA:BB:CC:DD:EE:FF", {"before": None, "limit": 50})),
        ("promote", ("act", RELEASE_ID, Action.PROMOTE, {"wave": 2, "caller": CALLER})),
        ("abort", ("act", RELEASE_ID, Action.ABORT, {"wave": None, "caller": CALLER})),
        ("replace_tags", ("replace_tags", "AA:BB:CC:DD:EE:FF", ["beta", "site=berlin"], {"caller": CALLER})),
    ],
)
def test_request_is_done(operate, name, asked):
    answered = operate(name)
    assert (answered.status, answered.body) == (200, {"answered": asked[0]})
    *what, options = operate.store.asked
    assert tuple(what) == asked[:-1]
    assert options.items() >= asked[-1].items()


def test_failing_devices_are_asked_for(operate):
    operate("list_failing_devices")
    assert operate.store.asked[2] == {"state": "failing", "after": None, "limit": 20}


def test_wake_is_handed_on_after_an_action(operate):
    assert operate("abort").wake == dataclasses.asdict(operate.store.wake)
    operate.store.wake = None
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
    assert operate.store.asked[-1].items() >= asked.items()


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
    assert operate.store.asked is None


@pytest.mark.parametrize(
    ("error", "code"), [(UnknownRelease(RELEASE_ID), "release_unknown"), (UnknownDevice("x"), "device_unknown")]
)
def test_unknown_is_not_found(operate, error, code):
    operate.store.error = error
    answered = operate("describe_release")
    assert (answered.status, answered.body["code"]) == (404, code)


@pytest.mark.parametrize("release_id", ["", "x", RELEASE_ID.upper(), RELEASE_ID + "0", "a\0"])
def test_what_names_no_release_is_not_found(operate, release_id):
    answered = operate("describe_release", pathParameters={"release_id": release_id})
    assert (answered.status, answered.body["code"]) == (404, "release_unknown")
    assert operate.store.asked is None


def test_path_of_nobody_is_not_found(operate):
    assert operate("describe_release", httpMethod="DELETE").status == 404


def test_action_that_the_state_forbids_is_a_conflict_that_tells_the_state(operate):
    operate.store.error = ActionRefused("its rollout is over", "published")
    answered = operate("abort")
    assert (answered.status, answered.body["code"], answered.body["state"]) == (409, "action_not_allowed", "published")
    assert answered.wake is None


def test_outage_of_the_database_is_told_as_one_that_passes(operate):
    operate.store.error = InterfaceError("gone")
    assert operate("abort").status == 503


class FakeLambda:
    def __init__(self):
        self.answer = {"statusCode": 200, "headers": {}, "body": "{}", "isBase64Encoded": False}
        self.passed_on = None
        self.function_error = {}
        self.error = None

    def invoke(self, *, FunctionName, Payload):  # noqa: ARG002, N803 - boto3's names
        if self.error:
            raise self.error
        self.passed_on = json.loads(Payload)
        return {"Payload": io.BytesIO(json.dumps(self.answer).encode()), **self.function_error}


@pytest.fixture
def api(aws, monkeypatch):
    handler = load_handler(
        "operator_api", monkeypatch, BUCKET="bucket", OPERATE_RELEASES_FUNCTION="operate", STATE_MACHINE_ARN="machine"
    )
    handler.LAMBDA = FakeLambda()
    woken = []
    handler.CONTINUATION = SimpleNamespace(
        wake=lambda release_id, execution, *, is_due: woken.append((release_id, execution, is_due))
    )

    def call(name="abort", **changes):
        return handler.lambda_handler(read_event("operator_api", name) | changes, CONTEXT)

    call.function, call.woken, call.handler = handler.LAMBDA, woken, handler
    return call


def test_request_is_passed_on_in_the_callers_name(api):
    assert api() == api.function.answer
    assert api.function.passed_on == read_event("operate_releases", "abort")
    assert api.woken == []


@pytest.mark.parametrize("status", [200, 409])
def test_every_request_is_logged_with_who_asked_for_what_and_the_answer(api, caplog, status):
    caplog.set_level("INFO")
    api.function.answer = api.function.answer | {"statusCode": status}
    api()
    [line] = caplog.records
    assert (line.getMessage(), line.caller, line.method, line.status) == ("operator asked", CALLER, "POST", status)
    assert line.path == f"/releases/{RELEASE_ID}/actions"


def test_execution_goes_on_where_the_answer_wants_it(api):
    wake = {"release_id": RELEASE_ID, "execution": "arn:e", "is_due": True}
    answered = api.function.answer
    api.function.answer = answered | {"wake": wake}
    assert api() == answered
    assert api.woken == [(RELEASE_ID, "arn:e", True)]


def test_action_is_to_be_repeated_where_no_execution_could_be_started(api):
    api.function.answer |= {"wake": {"release_id": RELEASE_ID, "execution": "arn:e", "is_due": True}}

    def fail(*_, **__):
        raise EndpointConnectionError(endpoint_url="x")

    api.handler.CONTINUATION.wake = fail
    assert api()["statusCode"] == 503


def test_failure_of_the_function_behind_is_told_without_its_trace(api):
    api.function.function_error = {"FunctionError": "Unhandled"}
    api.function.answer = {"errorMessage": "boom", "stackTrace": ["secret"]}
    answered = api()
    assert answered["statusCode"] == 500
    assert json.loads(answered["body"])["code"] == "operation_failed"
    assert "boom" not in answered["body"]


def in_groups(name, groups):
    """A console's event of a user whose groups API Gateway tells so."""
    context = read_event("operator_api", name)["requestContext"]
    claims = {**context["authorizer"]["claims"], "cognito:groups": groups}
    if groups is None:
        del claims["cognito:groups"]
    return {"requestContext": context | {"authorizer": {"claims": claims}}}


@pytest.mark.parametrize("groups", ["operator", "viewer,operator", "[viewer operator]", "[operator]"])
def test_operator_of_the_console_acts_in_his_own_name(api, groups):
    assert api("abort_from_console", **in_groups("abort_from_console", groups)) == api.function.answer
    assert api.function.passed_on == read_event("operate_releases", "abort") | {
        "caller": "cognito:ada:00000000-0000-4000-8000-0000000000aa"
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
    assert api.function.passed_on is None


def test_viewer_looks(api):
    look = {"httpMethod": "GET", "resource": "/api/releases", "body": None}
    assert api("abort_from_console", **in_groups("abort_from_console", "viewer"), **look)["statusCode"] == 200
    assert api.function.passed_on["resource"] == "/releases"


def test_nobody_without_an_identity_is_heard(api):
    context = read_event("operator_api", "abort")["requestContext"]
    context["identity"]["userArn"] = None
    assert api(requestContext=context)["statusCode"] == 403
    assert api.function.passed_on is None


def test_rejected_drops_are_listed_without_the_database(api):
    asked = []

    def list_rejected(**options):
        asked.append(options)
        return {"drops": [], "is_complete": True}

    api.handler.REJECTIONS = SimpleNamespace(list_rejected=list_rejected)
    assert json.loads(api("list_rejected_drops")["body"]) == {"drops": [], "is_complete": True}
    after = {"after": write_cursor("rejected", 1_790_000_000_000, "0" * 16)}
    assert api("list_rejected_drops", **query(**after))["statusCode"] == 200
    assert asked == [
        {"before": None, "limit": 20},
        {"before": (1_790_000_000_000, "0" * 16), "limit": 50},
    ]
    assert api.function.passed_on is None


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
