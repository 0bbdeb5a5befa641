"""Wrong parameters are refused before anything is created."""

import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from support.templates import read_template

PROJECT = Path(__file__).resolve().parents[2]
RIGHT = {"DatabaseHost": "db.example", "DatabaseUser": "ota"}
SECRET = {"DatabaseSecretArn": "arn:aws:secretsmanager:us-east-1:000000000000:secret:db"}
GITHUB = {"BuildServerIssuer": "token.actions.githubusercontent.com"}
MAINS = {"BuildServerSubject": "repo:my-org/my-firmware:ref:refs/heads/main"}
KEY = {"SigningKeyArn": "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-000000000000"}


@pytest.fixture
def check(cloud):
    """What CloudFormation says of parameters when a change set is made; nothing is ever executed."""
    client = cloud.client("cloudformation")

    def create(template, parameters):
        whole = read_template(PROJECT / template)
        # Without its resources, since rules and constraints are asked before any of them.
        small = {section: whole[section] for section in ("Parameters", "Rules")}
        small["Resources"] = {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}}
        client.create_change_set(
            StackName="parameters",
            ChangeSetName="try",
            ChangeSetType="CREATE",
            TemplateBody=json.dumps(small),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        )
        client.delete_stack(StackName="parameters")

    return create


@pytest.mark.parametrize(
    "parameters",
    [
        RIGHT,
        {"DatabaseHost": "db.example", **SECRET},
        RIGHT | {"VpcSubnetIds": "subnet-1,subnet-2", "VpcSecurityGroupIds": "sg-1"},
        RIGHT | GITHUB | MAINS,
        RIGHT | GITHUB | MAINS | KEY | {"BuildServerFolder": "thermostat/"},
    ],
)
def test_right_parameters_are_taken(check, parameters):
    check("template.yaml", parameters)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"DatabaseHost": "db.example"}, "Say how to log in"),
        (RIGHT | SECRET, "one way"),
        (RIGHT | {"DatabaseHost": "postgresql://db.example"}, "a host name, without a port"),
        (RIGHT | {"VpcSubnetIds": "subnet-1,subnet-2"}, "VpcSubnetIds without VpcSecurityGroupIds"),
        (RIGHT | {"VpcSecurityGroupIds": "sg-1"}, "VpcSecurityGroupIds without VpcSubnetIds"),
        (RIGHT | GITHUB, "Anyone can get tokens"),
        (RIGHT | MAINS, "needs BuildServerIssuer"),
        (RIGHT | KEY, "needs BuildServerIssuer"),
        (RIGHT | GITHUB | {"BuildServerSubject": "repo:my-org/*"}, "names an owner and a repository"),
        (RIGHT | GITHUB | MAINS | {"BuildServerFolder": "thermostat"}, "followed by a slash"),
        (RIGHT | {"TopicPrefix": "/firmware_update/"}, "without a slash at the end"),
        (RIGHT | {"PublicApiUrl": "api.example"}, "a URL without a slash at the end"),
    ],
)
def test_wrong_parameters_are_refused_with_what_is_expected(check, parameters, complaint):
    with pytest.raises(ClientError, match=complaint):
        check("template.yaml", parameters)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"MinCapacity": "2", "MaxCapacity": "1"}, "MinCapacity is greater than MaxCapacity"),
        ({"MinCapacity": "4", "MaxCapacity": "2"}, "MinCapacity is greater than MaxCapacity"),
        ({"EngineVersion": "15.4"}, "version 16.3 or later"),
        ({"VpcCidr": "10.0.0.0/28"}, "a range of IPv4 addresses"),
    ],
)
def test_wrong_parameters_of_the_database_are_refused(check, parameters, complaint):
    with pytest.raises(ClientError, match=complaint):
        check("database.yaml", parameters)
