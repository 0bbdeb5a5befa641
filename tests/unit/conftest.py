"""Unit tests open no socket: what they test has no business with the network."""

import socket

import boto3
import pytest
from moto import mock_aws
from ota_core.stores.firmware_store import FirmwareStore


class SocketOpened(AssertionError):  # noqa: N818 - what happened
    """A unit test reached for the network."""


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch):
    def refuse(self, *address):
        raise SocketOpened(f"a unit test reached for {address}")

    for method in ("bind", "connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, method, refuse)


@pytest.fixture
def aws(monkeypatch):
    """AWS in this process's memory."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


@pytest.fixture
def s3(aws):
    """A client, and a versioned bucket named `bucket`."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    return client


@pytest.fixture
def store(s3):
    return FirmwareStore(s3, "bucket")
