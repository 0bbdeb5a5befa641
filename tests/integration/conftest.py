"""A PostgreSQL of the tests' own, over TLS, with the project's schema."""

import itertools
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from local_cloud.postgresql import remove_cluster, start_postgresql, stop_postgresql
from local_cloud.processes import ServerProcess
from moto import mock_aws
from ota_core.runtime.log_line import log_database_failure
from ota_core.stores.database import Database, DatabaseSettings
from support.functions import load_handler

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def postgresql():
    """How to reach the server."""
    # Not under pytest's folders, which are closed to the user that PostgreSQL runs as.
    folder = PROJECT / ".local-integration"
    folder.mkdir(exist_ok=True)
    if left := ServerProcess.load(folder / "record"):  # by a run that was killed
        stop_postgresql(left)
    server = start_postgresql(folder / "cluster", folder / "ca.pem", folder / "log", folder / "record")
    yield server
    stop_postgresql(ServerProcess.load(folder / "record"))
    remove_cluster(folder / "cluster")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")  # no longer: other tests have a mocked AWS of their own
def connect(postgresql):
    """Makes connections as the functions make them: by secret, over verified TLS."""
    with mock_aws(), pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        login = {"username": postgresql.user, "password": postgresql.password}
        secret = boto3.client("secretsmanager").create_secret(Name="database", SecretString=json.dumps(login))
        settings = DatabaseSettings(
            database_host=postgresql.host,
            database_port=postgresql.port,
            database_name=postgresql.name,
            database_secret_arn=secret["ARN"],
            database_ca_pem=postgresql.ca_file.read_text(),
        )
        yield lambda: Database(settings, on_failure=log_database_failure, timeout_seconds=60)


@pytest.fixture(scope="module")
def database(connect):
    """A database with the schema that `migrate_database` makes."""
    connected = connect()
    connected.transaction(_migrate())
    return connected


@pytest.fixture
def migrate():
    """Brings the schema of a connection's database up to date; gives what was missing."""
    return _migrate()


def _migrate():
    with pytest.MonkeyPatch.context() as environment:
        return load_handler("migrate_database", environment).migrate


_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def insert_release(database):
    """Puts a release into the database, published unless told otherwise; gives its id and fields."""

    def insert(**changes):
        number = next(_numbers)
        fields = {
            "release_id": f"r{number}",
            "manifest_sha256": f"m{number}",
            "product": "p",
            "version": f"1.0.{number}",
            "sequence": number,
            "chip": "esp32",
            "changelog": "",
            "envelope": "{}",
            "keyid": "k",
            "image_key": f"releases/{number}",
            "image_version_id": "v",
            "image_size": 10,
            "image_sha256": "ab",
            "image_signature": "",
            "target_count": None,
            "allow_downgrade": False,
            "warnings": "[]",
            "execution_arn": "e",
            "state": "published",
            "cohort_percent": 100.0,
            "expires_at": datetime.now(UTC) + timedelta(days=1),
        } | changes

        def work(connection):
            connection.run(
                "INSERT INTO products (product) VALUES (:product) ON CONFLICT DO NOTHING", product=fields["product"]
            )
            # The names are ours.
            columns, values = ", ".join(fields), ", ".join(f":{name}" for name in fields)
            [(row,)] = connection.run(f"INSERT INTO releases ({columns}) VALUES ({values}) RETURNING id", **fields)  # noqa: S608
            return fields | {"id": row}

        return database.transaction(work)

    return insert
