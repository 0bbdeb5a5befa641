"""What the APIs' definitions promise, and that CloudFormation and API Gateway can read them."""

import ast
import re
import typing

import pytest
import yaml
from ota_core.formats import manifest, operator_documents, targets
from ota_core.formats.esp_image import CHIP_IDS

METHODS = {"get", "head", "post", "put"}
# The API's resource, its definition, and who may call.
APIS = [
    ("Api", "openapi.yaml", {"api_key": []}),
    ("OperatorApi", "operator.yaml", {"sigv4": []}),
    ("ConsoleApi", "console.yaml", {"userPool": ["openid"]}),
]


@pytest.fixture(scope="module", params=APIS, ids=lambda api: api[0])
def api(request):
    return request.param


@pytest.fixture(scope="module")
def text(project, api):
    return (project / "api" / api[1]).read_text()


@pytest.fixture(scope="module")
def definition(text):
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def operations(definition):
    found = [
        (path, method, operation)
        for path, item in definition["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]
    assert found
    return found


def test_template_includes_it(template, project, api):
    body = template["Resources"][api[0]]["Properties"]["DefinitionBody"]["Fn::Transform"]
    assert body["Name"] == "AWS::Include"
    assert (project / body["Parameters"]["Location"]).samefile(project / "api" / api[1])


def test_it_has_no_aliases_and_no_tags(text):
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-formats.html
    for token in yaml.scan(text):
        assert not isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)), token.start_mark


def test_every_operation_wants_its_caller_known_and_calls_a_function_that_exists(operations, resources, api):
    for path, method, operation in operations:
        if api[0] == "ConsoleApi" and not path.startswith("/api/"):
            assert (method, operation.get("security")) == ("get", None)  # Files, which hold no secret.
        else:
            assert operation["security"] == [api[2]], (path, method)
        called = operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]
        name = re.search(r"functions/\$\{(\w+)\.Arn\}/invocations$", called)[1]
        assert resources[name]["Type"] == "AWS::Serverless::Function"


def test_api_may_call_each_function_for_its_path_only(operations, resources, api):
    for path, _, operation in operations:
        if api[0] == "ConsoleApi":
            continue
        name = re.search(r"\$\{(\w+)Function\.Arn\}", operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"])[1]
        permission = resources[f"{name}Permission"]["Properties"]
        assert permission["FunctionName"] == {"Ref": f"{name}Function"}
        granted = permission["SourceArn"]["Fn::Sub"].split(f"${{{api[0]}}}/v1/*")[1]
        if api[0] == "OperatorApi":
            assert granted == ""  # One function answers every path.
        else:
            assert re.fullmatch(granted.replace("*", "[^/]+(/[^/]+)?"), path)


def test_console_may_call_the_operators_function_under_api_only(resources):
    granted = resources["ConsoleAuthorizeOperatorPermission"]["Properties"]
    assert granted["FunctionName"] == {"Ref": "AuthorizeOperatorFunction"}
    assert granted["SourceArn"]["Fn::Sub"].endswith("${ConsoleApi}/console/*/api/*")
    granted = resources["ServeConsolePermission"]["Properties"]
    assert granted["FunctionName"] == {"Ref": "ServeConsoleFunction"}
    assert granted["SourceArn"]["Fn::Sub"].endswith("${ConsoleApi}/console/GET/*")


def test_console_has_the_operators_api_and_nothing_more(project):
    operator, console = (
        yaml.safe_load((project / "api" / name).read_text())["paths"] for name in ("operator.yaml", "console.yaml")
    )
    offered = {
        (path.removeprefix("/api"), method)
        for path, item in console.items()
        for method in item
        if path.startswith("/api/")
    }
    assert offered == {(path, method) for path, item in operator.items() for method in item}
    assert set(console) - {f"/api{path}" for path in operator} == {"/", "/{file}"}


def test_names_of_models_are_alphanumeric(definition):
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
    assert all(name.isalnum() for name in definition["components"].get("schemas", {}))


def test_operators_sign_their_requests(project):
    definition = yaml.safe_load((project / "api" / "operator.yaml").read_text())
    [scheme] = definition["components"]["securitySchemes"].values()
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions-authtype.html
    assert scheme["x-amazon-apigateway-authtype"] == "awsSigv4"


def test_responses_stand_where_they_are_used(operations):
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
    for path, method, operation in operations:
        assert all("$ref" not in response for response in operation["responses"].values()), (path, method)


def test_every_gateway_response_is_an_error_like_the_others(definition):
    responses = definition["x-amazon-apigateway-gateway-responses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX"} <= set(responses)
    for response in responses.values():
        body = yaml.safe_load(response["responseTemplates"]["application/json"])
        assert set(body) == {"code", "message"}


@pytest.mark.parametrize(
    "mac", ["AA:BB:CC:DD:EE:FF", "aa-bb-cc-dd-ee-ff", "AABBCCDDEEFF", "AA:BB-CC:DD:EE:FF", "AA:BB:CC:DD:EE", "x"]
)
def test_patterns_are_those_of_the_code(project, mac):
    definition = yaml.safe_load((project / "api" / "openapi.yaml").read_text())
    operator = yaml.safe_load((project / "api" / "operator.yaml").read_text())
    [pattern] = [
        parameter["schema"]["pattern"]
        for parameter in definition["paths"]["/devices/{mac}/update"]["get"]["parameters"]
        if parameter["name"] == "mac"
    ]
    assert (re.search(pattern, mac) is not None) == (targets.normalise_mac(mac) is not None)
    assert operator["components"]["parameters"]["Mac"]["schema"]["pattern"] == pattern
    download = definition["paths"]["/firmware/{product}/{version}"]["parameters"]
    assert [parameter["schema"]["pattern"] for parameter in download if parameter["name"] == "mac"] == [pattern]


@pytest.mark.parametrize("product", ["p", "demo-sensor", "-p", "P", "a" * 63, "a" * 64, "", "status", "status-lamp"])
def test_pattern_of_a_product_is_that_of_the_code(project, product):
    definition = yaml.safe_load((project / "api" / "openapi.yaml").read_text())
    pattern = definition["paths"]["/firmware/{product}/{version}"]["parameters"][0]["schema"]["pattern"]
    assert (re.search(pattern, product) is not None) == manifest.is_product(product)


def test_chips_are_those_of_the_code(project):
    definition = yaml.safe_load((project / "api" / "openapi.yaml").read_text())
    parameters = definition["paths"]["/devices/{mac}/update"]["get"]["parameters"]
    [chips] = [parameter["schema"]["enum"] for parameter in parameters if parameter["name"] == "chip"]
    assert chips == list(CHIP_IDS)


@pytest.mark.parametrize("tag", ["b", "site=berlin", "B", "=x", "", "a" * 63, "a" * 64, "a b"])
def test_pattern_of_a_tag_is_that_of_the_code(project, tag):
    definition = yaml.safe_load((project / "api" / "operator.yaml").read_text())
    pattern = definition["components"]["schemas"]["Tags"]["properties"]["tags"]["items"]["pattern"]
    assert (re.search(pattern, tag) is not None) == targets.is_tag(tag)


def test_operators_api_takes_the_parameters_that_its_definition_names(project):
    definition = yaml.safe_load((project / "api" / "operator.yaml").read_text())
    shared = definition["components"]["parameters"]
    named = {}
    for path, item in definition["paths"].items():
        for method, operation in item.items():
            parameters = [
                shared[parameter["$ref"].rsplit("/", 1)[1]] if "$ref" in parameter else parameter
                for parameter in operation["parameters"]
            ]
            query = tuple(parameter["name"] for parameter in parameters if parameter["in"] == "query")
            named[method.upper(), path] = query
    tree = ast.parse((project / "functions" / "operate_releases" / "handler.py").read_text())
    [routes] = [node.value for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and node.target.id == "ROUTES"]
    taken = {
        ast.literal_eval(key): ast.literal_eval(value.elts[1])
        for key, value in zip(routes.keys, routes.values, strict=True)
    }
    # That one is answered from S3.
    assert named.pop(("GET", "/rejected-drops")) == ("limit", "after")
    assert taken == named


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ("Action", operator_documents.Action),
        ("Release", operator_documents.Release),
        ("ReleasePage", operator_documents.ReleasePage),
        ("Failing", operator_documents.Failing),
        ("Wave", operator_documents.Wave),
        ("Audited", operator_documents.Audited),
        ("ReleaseDetails", operator_documents.ReleaseDetails),
        ("Timeline", operator_documents.Timeline),
        ("DevicePage", operator_documents.DevicePage),
        ("DeviceInRelease", operator_documents.DeviceInRelease),
        ("Device", operator_documents.Device),
        ("Report", operator_documents.Report),
        ("TaggedDevice", operator_documents.TaggedDevice),
    ],
)
def test_operators_read_what_the_definition_promises(project, schema, document):
    schemas = yaml.safe_load((project / "api" / "operator.yaml").read_text())["components"]["schemas"]
    parts = schemas[schema].get("allOf", [schemas[schema]])
    parts = [schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part for part in parts]
    hints = typing.get_type_hints(document, include_extras=True)
    assert hints.keys() == {name for part in parts for name in part["properties"]}
    required = {name for part in parts for name in part["required"]}
    assert {name for name, hint in hints.items() if typing.get_origin(hint) is not typing.NotRequired} == required
