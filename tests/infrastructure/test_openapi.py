"""What the API's definition promises, and that CloudFormation and API Gateway can read it."""

import re

import pytest
import yaml
from ota_core import manifest, targets

METHODS = {"get", "head"}


@pytest.fixture(scope="module")
def text(project):
    return (project / "api" / "openapi.yaml").read_text()


@pytest.fixture(scope="module")
def definition(text):
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def operations(definition):
    return [
        (path, method, operation)
        for path, item in definition["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_template_includes_it(template, project):
    body = template["Resources"]["Api"]["Properties"]["DefinitionBody"]["Fn::Transform"]
    assert body["Name"] == "AWS::Include"
    assert (project / body["Parameters"]["Location"]).samefile(project / "api" / "openapi.yaml")


def test_it_has_no_aliases_and_no_tags(text):
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-formats.html
    for token in yaml.scan(text):
        assert not isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)), token.start_mark


def test_every_operation_wants_the_key_and_calls_a_function_that_exists(operations, resources):
    for path, method, operation in operations:
        assert operation["security"] == [{"api_key": []}], (path, method)
        called = operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]
        name = re.search(r"functions/\$\{(\w+)\.Arn\}/invocations$", called)[1]
        assert resources[name]["Type"] == "AWS::Serverless::Function"


def test_api_may_call_each_function_for_its_path_only(operations, resources):
    for path, _, operation in operations:
        name = re.search(r"\$\{(\w+)Function\.Arn\}", operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"])[1]
        permission = resources[f"{name}Permission"]["Properties"]
        assert permission["FunctionName"] == {"Ref": f"{name}Function"}
        granted = permission["SourceArn"]["Fn::Sub"].split("${Api}/v1/*")[1]
        assert re.fullmatch(granted.replace("*", "[^/]+(/[^/]+)?"), path)


def test_names_of_models_are_alphanumeric(definition):
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
    assert all(name.isalnum() for name in definition["components"]["schemas"])


def test_every_gateway_response_is_an_error_like_the_others(definition):
    responses = definition["x-amazon-apigateway-gateway-responses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX"} <= set(responses)
    for response in responses.values():
        body = yaml.safe_load(response["responseTemplates"]["application/json"])
        assert set(body) == {"code", "message"}


@pytest.mark.parametrize(
    "mac", ["AA:BB:CC:DD:EE:FF", "aa-bb-cc-dd-ee-ff", "AABBCCDDEEFF", "AA:BB-CC:DD:EE:FF", "AA:BB:CC:DD:EE", "x"]
)
def test_patterns_are_those_of_the_code(definition, mac):
    [pattern] = [
        parameter["schema"]["pattern"]
        for parameter in definition["paths"]["/devices/{mac}/update"]["get"]["parameters"]
        if parameter["name"] == "mac"
    ]
    assert (re.search(pattern, mac) is not None) == (targets.normalise_mac(mac) is not None)


@pytest.mark.parametrize("product", ["p", "demo-sensor", "-p", "P", "a" * 63, "a" * 64, ""])
def test_pattern_of_a_product_is_that_of_the_code(definition, product):
    pattern = definition["paths"]["/firmware/{product}/{version}"]["parameters"][0]["schema"]["pattern"]
    assert (re.search(pattern, product) is not None) == manifest.is_product(product)
