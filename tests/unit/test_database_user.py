"""The custom resource of database.yaml: statements through the RDS Data API, and an answer whatever happens."""

import io
import json
import time
import urllib.request

import pytest
from botocore.stub import Stubber
from support.database_user import load_database_user

CLUSTER = {"ClusterArn": "arn:aws:rds:us-east-1:000000000000:cluster:ota", "SecretArn": "arn:aws:secretsmanager:s"}


def request(kind):
    return {
        "RequestType": kind,
        "ResponseURL": "https://cloudformation.example/answer",
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "User",
        "ResourceProperties": CLUSTER,
    }


@pytest.fixture
def function(monkeypatch):
    return load_database_user(monkeypatch)


@pytest.fixture
def data_api(function):
    with Stubber(function.DATABASE) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def answers(monkeypatch):
    sent = []

    def put(sending, timeout):
        assert sending.get_method() == "PUT"
        # CloudFormation signed the URL for a request without a content type.
        assert sending.headers["Content-type"] == ""
        sent.append(json.loads(sending.data) | {"url": sending.full_url})
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", put)
    return sent


@pytest.fixture
def naps(monkeypatch):
    taken = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


def expect_all_statements(function, data_api):
    for statement in function.STATEMENTS:
        data_api.add_response(
            "execute_statement",
            {"numberOfRecordsUpdated": 0},
            {
                "resourceArn": CLUSTER["ClusterArn"],
                "secretArn": CLUSTER["SecretArn"],
                "database": "ota",
                "sql": statement,
            },
        )


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_user_is_made_and_cloudformation_told(function, data_api, answers, kind):
    expect_all_statements(function, data_api)
    function.lambda_handler(request(kind), None)
    [answer] = answers
    assert answer["url"] == "https://cloudformation.example/answer"
    assert (answer["Status"], answer["StackId"], answer["RequestId"]) == ("SUCCESS", "stack", "request")


@pytest.mark.parametrize("error", ["DatabaseResumingException", "DatabaseUnavailableException"])
def test_database_that_is_paused_or_starting_is_waited_for(function, data_api, answers, naps, error):
    for _ in range(3):
        data_api.add_client_error("execute_statement", error)
    expect_all_statements(function, data_api)
    function.lambda_handler(request("Create"), None)
    assert len(naps) == 3
    assert answers[0]["Status"] == "SUCCESS"


def test_what_the_database_refuses_fails_the_resource_with_the_reason(function, data_api, answers):
    data_api.add_client_error("execute_statement", "DatabaseErrorException", "permission denied to create role")
    function.lambda_handler(request("Create"), None)
    assert answers[0]["Status"] == "FAILED"
    assert "permission denied to create role" in answers[0]["Reason"]


def test_deletion_leaves_the_user_with_the_database(function, data_api, answers):
    function.lambda_handler(request("Delete"), None)
    assert answers[0]["Status"] == "SUCCESS"
