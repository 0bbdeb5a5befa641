"""The dashboard, the alarms and the saved queries ask for what there is."""

import ast
import json
import re

import pytest
from ota_core.formats.device_status import DeviceState
from ota_core.runtime import metrics

# What AWS documents, by namespace and name, with the dimensions that it is asked for by.
# https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html
# https://docs.aws.amazon.com/iot/latest/developerguide/metrics_dimensions.html
AWS_METRICS = {
    ("AWS/States", "ExecutionsFailed"): {"StateMachineArn"},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {"QueueName"},
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {"QueueName"},
    ("AWS/ApiGateway", "Count"): {"ApiName"},
    ("AWS/ApiGateway", "4XXError"): {"ApiName"},
    ("AWS/ApiGateway", "5XXError"): {"ApiName"},
    ("AWS/ApiGateway", "Latency"): {"ApiName"},
    ("AWS/IoT", "PublishIn.Success"): {"Protocol"},
    ("AWS/IoT", "PublishIn.Throttle"): {"Protocol"},
}
OWN_NAMESPACE = "esp32-ota/${AWS::StackName}"
OWN_METRICS = {name: value for name, value in vars(metrics).items() if isinstance(value, metrics.Metric)}
# The values that a dimension of ours, or of AWS's, can have. What is not here is the template's own name for a
# resource, or what only SEARCH asks for.
VALUES = {
    "outcome": {"registered", "published", "aborted", "withdrawn"},
    "state": set(DeviceState),
    "Protocol": {"MQTT", "HTTP"},
}
# What Powertools' Logger, Lambda and Step Functions write into a line beside what the functions give them.
# https://docs.aws.amazon.com/powertools/python/latest/core/logger/#standard-structured-keys
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html
# https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html
FIELDS_OF_OTHERS = {"level", "message", "function_name", "exception", "exception_name"}
FIELDS_OF_OTHERS |= {"errorType", "errorMessage", "record", "status", "type"}


def of_type(resources, kind):
    found = {name: resource["Properties"] for name, resource in resources.items() if resource["Type"] == kind}
    assert found, f"the template has no {kind}"
    return found


def text_of(value):
    """A string as the template has it, with its placeholders."""
    return value["Fn::Sub"] if isinstance(value, dict) and "Fn::Sub" in value else value


@pytest.fixture(scope="module")
def known(resources):
    """Which combinations of dimensions' names each metric has, by its namespace and name."""
    found = {metric: {frozenset(names)} for metric, names in AWS_METRICS.items()}
    for metric in OWN_METRICS.values():
        found[OWN_NAMESPACE, metric.name] = {frozenset(names) for names in metric.dimension_sets}
    for properties in of_type(resources, "AWS::Logs::MetricFilter").values():
        for made in properties["MetricTransformations"]:
            names = frozenset(dimension["Key"] for dimension in made.get("Dimensions", []))
            found[text_of(made["MetricNamespace"]), made["MetricName"]] = {names}
    return found


@pytest.fixture(scope="module")
def alarms(resources):
    return of_type(resources, "AWS::CloudWatch::Alarm")


@pytest.fixture(scope="module")
def queries(resources):
    return of_type(resources, "AWS::Logs::QueryDefinition")


@pytest.fixture(scope="module")
def body(resources):
    """The dashboard as CloudWatch gets it, but for the placeholders, which keep their names."""
    source = resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    return json.loads(source.replace("${!", "${"))


@pytest.fixture(scope="module")
def widgets(body):
    return [widget for widget in body["widgets"] if widget["type"] == "metric"]


def asked_for(widget):
    """(namespace, name, dimensions) of each metric of a widget; a dimension that SEARCH fills in is None."""
    before = []
    for row in widget["properties"]["metrics"]:
        if "expression" in row[0]:
            yield searched(row[0]["expression"])
            continue
        before = spelled_out([item for item in row if isinstance(item, str)], before)
        namespace, name, *dimensions = before
        assert len(dimensions) % 2 == 0, row
        yield namespace, name, dict(zip(dimensions[::2], dimensions[1::2], strict=True))


def spelled_out(row, before):
    """A row without its abbreviations: "." is what stands above, "..." everything above up to what follows it."""
    if row[0] == "...":
        return before[: len(before) - len(row) + 1] + row[1:]
    return [before[index] if item == "." else item for index, item in enumerate(row)]


def searched(expression):
    pattern = r"""SEARCH\('\{"([^"]+)"((?:,\w+)*)\} MetricName="(\w+)"(?: \(([^()]+)\))?', 'Sum'\)"""
    namespace, names, name, choice = re.fullmatch(pattern, expression).groups()
    for term in (choice or "").split(" OR ") if choice else []:
        dimension, value = re.fullmatch(r'(\w+)="(\w+)"', term).groups()
        assert dimension in names.split(",")
        assert value in VALUES[dimension]
    return namespace, name, dict.fromkeys(names.split(",")[1:])


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", OWN_METRICS)
def test_every_metric_is_emitted_by_a_function(project, constant):
    handlers = [file.read_text() for file in (project / "functions").glob("*/handler.py")]
    assert any(f"metrics.emit(metrics.{constant}," in handler for handler in handlers)


def test_no_dimension_is_a_device_or_a_release():
    names = {name for metric in OWN_METRICS.values() for names in metric.dimension_sets for name in names}
    assert names == {"product", "outcome", "state", "reason"}


def test_functions_metrics_and_the_logs_have_the_stacks_namespace(template, resources):
    variables = template["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == {"Fn::Sub": OWN_NAMESPACE}
    for properties in of_type(resources, "AWS::Logs::MetricFilter").values():
        assert [text_of(made["MetricNamespace"]) for made in properties["MetricTransformations"]] == [OWN_NAMESPACE]


def test_metric_filters_match_what_the_functions_log(resources, project):
    fields, messages = logged(project)
    for name, properties in of_type(resources, "AWS::Logs::MetricFilter").items():
        pattern = properties["FilterPattern"]
        assert set(re.findall(r'\$\.message = "([^"]+)"', pattern)) <= messages, name
        for made in properties["MetricTransformations"]:
            taken = [made["MetricValue"], *(dimension["Value"] for dimension in made.get("Dimensions", []))]
            named = re.findall(r"\$\.([\w.]+)", " ".join([pattern, *taken]))
            assert {part for field in named for part in field.split(".")} <= fields | FIELDS_OF_OTHERS, name


# --- the dashboard ----------------------------------------------------------------------------------------------------


def test_every_widget_asks_for_metrics_that_there_are(widgets, known):
    asked = [metric for widget in widgets for metric in asked_for(widget)]
    assert len(asked) > 30
    for namespace, name, dimensions in asked:
        assert frozenset(dimensions) in known.get((namespace, name), ()), f"{namespace} {name} {dimensions}"
        for dimension, value in dimensions.items():
            assert value is None or dimension not in VALUES or value in VALUES[dimension], f"{name} {dimension} {value}"


def test_every_metric_of_ours_is_seen(widgets, known):
    seen = {(namespace, name) for widget in widgets for namespace, name, _ in asked_for(widget)}
    assert {metric for metric in known if metric[0] == OWN_NAMESPACE} <= seen


def test_every_state_and_outcome_is_seen(widgets):
    seen = {value for widget in widgets for _, _, dimensions in asked_for(widget) for value in dimensions.values()}
    assert VALUES["state"] | VALUES["outcome"] <= seen


def test_every_alarm_is_on_the_dashboard(body, alarms):
    [shown] = [widget["properties"]["alarms"] for widget in body["widgets"] if widget["type"] == "alarm"]
    assert set(shown) == {f"${{{name}.Arn}}" for name in alarms}


def test_dashboard_names_no_region_account_or_stack(body, widgets, resources):
    text = json.dumps(body)
    for fixed in (r"arn:", r"\d{12}", r"\b(?:af|ap|ca|cn|eu|il|me|mx|sa|us)-[a-z-]+-\d\b"):
        assert re.search(fixed, text) is None, fixed
    assert {widget["properties"]["region"] for widget in widgets} == {"${AWS::Region}"}
    apis = {text_of(api["Name"]) for api in of_type(resources, "AWS::Serverless::Api").values()}
    for widget in widgets:
        for namespace, _, dimensions in asked_for(widget):
            assert namespace.startswith("AWS/") or namespace == OWN_NAMESPACE
            assert dimensions.get("ApiName") in {None, *apis}


def test_widgets_lie_side_by_side(body):
    cells = set()
    for widget in body["widgets"]:
        assert widget["x"] + widget["width"] <= 24
        for x in range(widget["x"], widget["x"] + widget["width"]):
            for y in range(widget["y"], widget["y"] + widget["height"]):
                assert (x, y) not in cells, widget["properties"]["title"]
                cells.add((x, y))


# --- alarms -----------------------------------------------------------------------------------------------------------


def test_every_alarm_tells_the_alerts_topic(alarms):
    assert len(alarms) >= 8
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == [{"Ref": "AlertsTopic"}], name
        # Nothing to count is nothing to ring for.
        assert alarm["TreatMissingData"] == "notBreaching", name


def test_every_alarm_watches_a_metric_that_there_is(alarms, known):
    for name, alarm in alarms.items():
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm.get("Dimensions", [])}
        metric = text_of(alarm["Namespace"]), alarm["MetricName"]
        assert frozenset(dimensions) in known.get(metric, ()), f"{name}: {metric}"
        for dimension, value in dimensions.items():
            assert dimension not in VALUES or value in VALUES[dimension], f"{name}: {dimension} {value}"


def test_every_alarm_has_a_paragraph_on_what_to_do(alarms, project):
    page = (project / "docs" / "operations.md").read_text()
    paragraphs = dict(re.findall(r"^### `(\w+)`[^\n]*\n\n(.+?)\n(?:\n|\Z)", page, re.MULTILINE | re.DOTALL))
    assert set(paragraphs) >= set(alarms)


# --- queries ----------------------------------------------------------------------------------------------------------


def test_queries_search_the_stacks_own_log_groups(queries, resources):
    assert len(queries) >= 5
    for name, query in queries.items():
        for group in query["LogGroupNames"]:
            assert resources[group["Ref"]]["Type"] == "AWS::Logs::LogGroup", name


def test_queries_have_a_folder_of_the_stack(queries):
    for query in queries.values():
        assert re.fullmatch(r"\$\{AWS::StackName\}/[^/$]+", text_of(query["Name"]))


def test_queries_use_fields_and_messages_that_the_functions_log(queries, project, state_machine):
    fields, messages = logged(project)
    # Functions log what the state machine gives them, too.
    fields |= {key.removesuffix(".$") for state in state_machine["States"].values() for key in keys_in(state)}
    for name, query in queries.items():
        asked, filtered = fields_and_messages(query["QueryString"])
        assert asked, name
        for field in asked:
            assert set(field.split(".")) <= fields | FIELDS_OF_OTHERS, f"{name}: {field}"
        assert filtered <= messages, name


def keys_in(item):
    for key, value in item.items():
        yield key
        if isinstance(value, dict):
            yield from keys_in(value)


def logged(project):
    """The names of all fields that functions give to their log, nested ones too, and the messages."""
    fields, messages = set(), set()
    files = [*(project / "functions").glob("*/handler.py"), *(project / "layers/ota_core/ota_core").rglob("*.py")]
    for file in files:
        tree = ast.parse(file.read_text())
        # A line's field may be anything that some function answers with, as {"verdict": answer}.
        fields |= {
            key.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Dict)
            for key in node.keys
            if isinstance(key, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and is_log_call(node.func):
                messages.add(node.args[0].value)
                fields |= {keyword.arg for keyword in node.keywords}
    return fields, messages


def is_log_call(function):
    if isinstance(function, ast.Attribute):
        return isinstance(function.value, ast.Name) and function.value.id == "logger"
    return isinstance(function, ast.Name) and function.id == "write_line"


def fields_and_messages(query):
    fields, messages = set(), set()
    for stage in query.strip().split("\n| "):
        command, _, arguments = stage.partition(" ")
        if command == "filter":
            without_texts = re.sub(r'"[^"]*"', "", arguments)
            for message in re.findall(r'message (?:= "([^"]+)"|in \[([^]]+)\])', arguments):
                messages |= {message[0]} if message[0] else set(re.findall(r'"([^"]+)"', message[1]))
        elif command == "fields":
            without_texts = re.sub(r"\bas \w+", "", arguments)
        else:
            assert command in {"sort", "limit"}, stage
            continue
        words = set(re.findall(r"@?[A-Za-z][\w.]*", without_texts))
        fields |= {word for word in words if not word.startswith("@")} - {"and", "or", "like", "in", "coalesce"}
    return fields, messages
