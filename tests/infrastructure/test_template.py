"""What the template promises beyond what cfn-lint and checkov look at."""

import ast
import re

import pytest
from support.privileges import ALLOWED

# Actions for which AWS knows no resource to name
# (https://docs.aws.amazon.com/service-authorization/latest/reference/).
WITHOUT_RESOURCES = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
    "iot:DescribeEndpoint",
    "iot:ListPolicyPrincipals",
    "iot:ListThingPrincipals",
    "iot:ListPrincipalPolicies",
    "iot:ListPrincipalThings",
    "iot:RegisterThing",
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
}
# What a function without internet reaches: S3 through the gateway endpoint, and the database, for which a token is
# signed without a call. Lambda's own service makes its network interfaces and ships its logs and traces from outside.
# Anyone with a secret instead of a token has an endpoint for it.
WITHIN_THE_VPC = {"s3", "rds-db", "ec2", "logs", "xray", "secretsmanager"}
BY_LAMBDAS_SERVICE = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}


def listed(value):
    return value if isinstance(value, list) else [value]


def of_type(resources, kind):
    found = {name: resource for name, resource in resources.items() if resource["Type"] == kind}
    assert found, f"the template has no {kind}"
    return found


def flatten_ifs(statements):
    """Every statement that a condition may choose."""
    for statement in statements:
        if "Fn::If" in statement:
            yield from flatten_ifs(choice for choice in statement["Fn::If"][1:] if "Ref" not in choice)
        else:
            yield statement


def statements_of(resources, role):
    properties = role["Properties"]
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    documents += [
        resources[policy["Ref"]]["Properties"]["PolicyDocument"] for policy in properties.get("ManagedPolicyArns", [])
    ]
    return list(flatten_ifs(statement for document in documents for statement in document["Statement"]))


def functions_with_roles(resources):
    for name, function in of_type(resources, "AWS::Serverless::Function").items():
        role = function["Properties"]["Role"]["Fn::GetAtt"][0]
        yield name, function, statements_of(resources, resources[role])


def variables_of(function):
    return function["Properties"].get("Environment", {}).get("Variables", {})


def test_every_function_has_a_role_of_its_own(resources):
    roles = [
        function["Properties"]["Role"]["Fn::GetAtt"][0]
        for function in of_type(resources, "AWS::Serverless::Function").values()
    ]
    assert len(roles) == len(set(roles)) > 5


def test_rights_of_every_role_are_written_down_and_tried(resources):
    """tests/e2e/test_least_privilege.py tries them; a new role or function needs its line there."""
    assert set(of_type(resources, "AWS::IAM::Role")) == ALLOWED.keys()


def test_no_role_may_use_every_resource_where_one_can_be_named(resources):
    for name, role in of_type(resources, "AWS::IAM::Role").items():
        for statement in statements_of(resources, role):
            if "*" in listed(statement["Resource"]):
                assert set(listed(statement["Action"])) <= WITHOUT_RESOURCES, name
            assert not any(action.endswith("*") for action in listed(statement["Action"])), name


def test_no_function_uses_both_postgresql_and_what_lies_beyond_the_vpc(resources):
    with_database = set()
    for name, function, statements in functions_with_roles(resources):
        if "DATABASE_HOST" not in variables_of(function):
            assert "VpcConfig" not in function["Properties"], name
            continue
        with_database.add(name)
        assert "VpcConfig" in function["Properties"], name
        for statement in statements:
            if name == "RecordStatusFunction" and statement["Resource"] == {"Fn::GetAtt": ["StatusQueue", "Arn"]}:
                # Not the function, but Lambda's service takes messages from the queue, from outside the VPC.
                assert set(listed(statement["Action"])) == BY_LAMBDAS_SERVICE
                continue
            services = {action.split(":")[0] for action in listed(statement["Action"])}
            assert services <= WITHIN_THE_VPC, name
            if "secretsmanager" in services:
                assert statement["Resource"] == {"Ref": "DatabaseSecretArn"}, name
    assert {"RegisterMetadataFunction", "MigrateDatabaseFunction"} <= with_database


def test_modules_that_use_postgresql_are_given_its_settings(resources, project):
    for name, function, _ in functions_with_roles(resources):
        source = (project / function["Properties"]["CodeUri"] / "handler.py").read_text()
        uses_database = "ota_core.stores.database" in source
        assert uses_database == ("DATABASE_HOST" in variables_of(function)), name


def test_every_setting_that_a_function_reads_is_in_the_template_and_no_other(resources, project):
    database = project / "layers" / "ota_core" / "ota_core" / "stores" / "database.py"
    for name, function, _ in functions_with_roles(resources):
        source = (project / function["Properties"]["CodeUri"] / "handler.py").read_text()
        settings = fields_of(source, "Settings")
        if "DatabaseSettings" in source:
            settings |= fields_of(database.read_text(), "DatabaseSettings")
        assert {setting.upper() for setting in settings} == set(variables_of(function)), name


def fields_of(source, class_name):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    return set()


def test_schema_resource_names_the_last_migration(resources, project):
    migrations = sorted((project / "functions" / "migrate_database" / "migrations").glob("*.sql"))
    assert [int(migration.name[:4]) for migration in migrations] == list(range(1, len(migrations) + 1))
    assert resources["DatabaseSchema"]["Properties"]["Schema"] == migrations[-1].name


def test_bucket_survives_the_stack_and_is_versioned_encrypted_and_private(resources):
    bucket = resources["FirmwareBucket"]
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    properties = bucket["Properties"]
    assert properties["VersioningConfiguration"]["Status"] == "Enabled"
    assert properties["BucketEncryption"]
    assert all(properties["PublicAccessBlockConfiguration"].values())


def test_releases_and_archive_never_expire(resources):
    rules = resources["FirmwareBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = {rule["Prefix"] for rule in rules if "ExpirationInDays" in rule or "NoncurrentVersionExpiration" in rule}
    assert expiring == {"inbox/", "rejected/", "status/", "batches/", "claims/"}


def test_every_function_logs_where_errors_are_counted(template, resources):
    logging = template["Globals"]["Function"]["LoggingConfig"]
    assert logging["LogGroup"] == resources["FunctionErrorsMetric"]["Properties"]["LogGroupName"]
    # The filter's pattern is for JSON.
    assert logging["LogFormat"] == "JSON"
    for name, function in of_type(resources, "AWS::Serverless::Function").items():
        assert "LoggingConfig" not in function["Properties"], name


def test_people_sign_in_to_the_console_without_a_secret_and_are_made_by_nobody_but_its_owner(resources):
    client = resources["ConsoleClient"]["Properties"]
    assert client["GenerateSecret"] is False
    assert (client["AllowedOAuthFlows"], client["AllowedOAuthScopes"]) == (["code"], ["openid"])
    assert resources["ConsoleUsers"]["Properties"]["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}


def test_console_reads_reasons_of_rejections_and_nothing_else_in_the_bucket(resources):
    statements = statements_of(resources, resources["AuthorizeOperatorRole"])
    granted = {
        action: statement
        for statement in statements
        for action in listed(statement["Action"])
        if action.startswith("s3:")
    }
    assert set(granted) == {"s3:GetObject", "s3:ListBucket"}
    assert granted["s3:GetObject"]["Resource"]["Fn::Sub"].endswith("/rejected/*.reason.json")
    assert granted["s3:ListBucket"]["Condition"] == {"StringLike": {"s3:prefix": "rejected/*"}}


def test_devices_keep_their_policy_when_the_stack_is_deleted(resources):
    policy = resources["DevicePolicy"]
    assert (policy["DeletionPolicy"], policy["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


def test_device_may_publish_its_own_status_and_nothing_else(resources):
    statements = resources["DevicePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    publish = [statement for statement in statements if "iot:Publish" in listed(statement["Action"])]
    assert len(publish) == 1
    assert publish[0]["Resource"]["Fn::Sub"].endswith("topic/${TopicPrefix}/${!iot:Connection.Thing.ThingName}/status")


def test_status_of_any_device_is_queued_and_what_cannot_be_queued_is_kept(resources):
    rule = resources["StatusRule"]["Properties"]["TopicRulePayload"]
    assert rule["Sql"]["Fn::Sub"].endswith("FROM '${TopicPrefix}/+/status'")
    assert [action["Sqs"]["QueueUrl"] for action in rule["Actions"]] == [{"Ref": "StatusQueue"}]
    assert rule["ErrorAction"]["Sqs"]["QueueUrl"] == {"Ref": "StatusDeadLetters"}


@pytest.mark.parametrize("name", ["DeadLetters", "StatusQueue", "StatusDeadLetters"])
def test_queue_is_encrypted_and_keeps_messages_as_long_as_it_can(resources, name):
    queue = resources[name]["Properties"]
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_status_waits_half_a_day_for_the_database_before_it_is_a_dead_letter(resources):
    queue = resources["StatusQueue"]["Properties"]
    function = resources["RecordStatusFunction"]["Properties"]
    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["StatusDeadLetters", "Arn"]}
    assert queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"] > 12 * 3600
    assert "ReportBatchItemFailures" in function["Events"]["Statuses"]["Properties"]["FunctionResponseTypes"]


def test_devices_leave_room_for_operators_and_the_pipeline(template, resources, database_template):
    """Whatever someone with the API key does, others get functions (100 of 1,000 unreserved) and connections."""
    called_by_devices = {"DeliverFirmwareFunction", "CheckForUpdateFunction"}
    reserved = {
        name: function["Properties"]["ReservedConcurrentExecutions"]["Fn::If"]
        for name, function in resources.items()
        if "ReservedConcurrentExecutions" in function.get("Properties", {})
    }
    by_anyone = {"ServeConsoleFunction"}
    assert reserved.keys() == called_by_devices | by_anyone
    assert {reserved[name][1]["Ref"] for name in called_by_devices} == {"ApiConcurrency"}
    assert {condition for condition, *_ in reserved.values()} == {"HasApiConcurrency"}
    devices = len(called_by_devices) * template["Parameters"]["ApiConcurrency"]["Default"]
    anyone = sum(reserved[name][1] for name in by_anyone)
    assert 1000 - devices - anyone >= 100
    capacity = database_template["Parameters"]["MaxCapacity"]
    [connections] = re.findall(rf"\b{capacity['Default']} about (\d+)", capacity["Description"])
    assert int(connections) - devices >= 100


def test_no_address_keeps_others_from_the_console(resources):
    acl = resources["ConsoleWebAcl"]
    [rule] = acl["Properties"]["Rules"]
    assert rule["Statement"]["RateBasedStatement"]["AggregateKeyType"] == "IP"
    assert rule["Statement"]["RateBasedStatement"]["Limit"] == {"Ref": "ConsoleRatePerAddress"}
    assert rule["Action"] == {"Block": {}}
    assert acl["Condition"] == "HasConsoleRate"
    protected = {
        name: resource["Properties"]["ResourceArn"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::WAFv2::WebACLAssociation"
        and resource["Properties"]["WebACLArn"] == {"Fn::GetAtt": ["ConsoleWebAcl", "Arn"]}
        and resource["Condition"] == "HasConsoleRate"
    }
    assert protected["ConsoleWebAclAssociation"]["Fn::Sub"].endswith(
        "::/restapis/${ConsoleApi}/stages/${ConsoleApi.Stage}"
    )
    assert protected["SignInWebAclAssociation"] == {"Fn::GetAtt": ["ConsoleUsers", "Arn"]}
