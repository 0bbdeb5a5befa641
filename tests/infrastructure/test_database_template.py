"""What database.yaml promises beyond what cfn-lint and checkov look at."""

import pytest

OUTLIVE_THE_STACK = {
    "AWS::EC2::VPC",
    "AWS::EC2::Subnet",
    "AWS::EC2::RouteTable",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::SecurityGroup",
    "AWS::RDS::DBSubnetGroup",
    "AWS::RDS::DBClusterParameterGroup",
    "AWS::RDS::DBCluster",
    "AWS::RDS::DBInstance",
}


@pytest.fixture
def resources(database_template):
    return database_template["Resources"]


def test_outputs_are_parameters_of_the_main_template(template, database_template):
    outputs = set(database_template["Outputs"])
    assert outputs <= set(template["Parameters"])
    # Login by token, from inside the network: nothing that the main template needs for it is left to be found out.
    assert outputs == {
        *("DatabaseHost", "DatabasePort", "DatabaseName", "DatabaseUser", "DatabaseResourceId"),
        *("VpcSubnetIds", "VpcSecurityGroupIds"),
    }


def test_database_and_what_it_stands_in_outlive_the_stack(resources):
    for name, resource in resources.items():
        stays = resource.get("DeletionPolicy") == "RetainExceptOnCreate" and resource["UpdateReplacePolicy"] == "Retain"
        assert stays == (resource["Type"] in OUTLIVE_THE_STACK), name
    assert {resource["Type"] for resource in resources.values()} > OUTLIVE_THE_STACK


def test_database_pauses_refuses_plain_text_and_cannot_be_deleted_by_mistake(resources, database_template):
    cluster = resources["Cluster"]["Properties"]
    assert database_template["Parameters"]["MinCapacity"]["Default"] == 0
    assert cluster["EnableIAMDatabaseAuthentication"] is cluster["StorageEncrypted"] is True
    assert cluster["DeletionProtection"] is cluster["ManageMasterUserPassword"] is True
    assert resources["ParameterGroup"]["Properties"]["Parameters"] == {"rds.force_ssl": "1"}
    assert resources["Instance"]["Properties"]["PubliclyAccessible"] is False


def test_network_has_no_way_to_the_internet(resources):
    types = {resource["Type"] for resource in resources.values()}
    assert not types & {
        "AWS::EC2::InternetGateway",
        "AWS::EC2::EgressOnlyInternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::Route",
        "AWS::EC2::TransitGatewayAttachment",
        "AWS::EC2::VPCPeeringConnection",
    }
    endpoints = [resource for resource in resources.values() if resource["Type"] == "AWS::EC2::VPCEndpoint"]
    assert [endpoint["Properties"]["VpcEndpointType"] for endpoint in endpoints] == ["Gateway"]


def test_only_functions_reach_the_database_and_it_reaches_nothing(resources):
    group = resources["DatabaseSecurityGroup"]["Properties"]
    [ingress] = group["SecurityGroupIngress"]
    assert ingress["SourceSecurityGroupId"] == {"Ref": "FunctionsSecurityGroup"}
    assert ingress["FromPort"] == ingress["ToPort"] == 5432
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == ["127.0.0.1/32"]


def test_subnets_lie_in_two_availability_zones(resources):
    zones = [resources[subnet]["Properties"]["AvailabilityZone"]["Fn::Select"][0] for subnet in ("SubnetA", "SubnetB")]
    assert zones == [0, 1]
