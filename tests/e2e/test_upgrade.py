"""A stack of the first schema with a release in it, and the present one deployed over it: the release is served."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
import yaml
from local_cloud.stack import ARCHITECTURE, ARTIFACTS_BUCKET, RUNTIME
from support.drops import key, make_drop

PROJECT = Path(__file__).resolve().parents[2]
STACK = "ota-upgraded"
FIRST_SCHEMA = "0001_releases.sql"
PRODUCT, VERSION = "veteran", "1.0.0"


@pytest.fixture(scope="module")
def deploy(cloud, tmp_path_factory):
    """Deploys a template of those that `sam build` built, and gives the stack's outputs."""
    connection = cloud.connect_database()
    connection.run("CREATE DATABASE upgraded")
    connection.close()
    secret = cloud.client("secretsmanager").describe_secret(SecretId="ota/database")
    parameters = tmp_path_factory.mktemp("upgrade") / "parameters.yaml"
    parameters.write_text(
        yaml.safe_dump(
            {
                "DatabaseHost": cloud.database.host,
                "DatabasePort": cloud.database.port,
                "DatabaseName": "upgraded",
                "DatabaseSecretArn": secret["ARN"],
                "DatabaseCaPem": cloud.database.ca_file.read_text(),
                "PublicApiUrl": f"{cloud.endpoint}/_aws/execute-api/{STACK}-api/v1",
                "TopicPrefix": "/upgraded/firmware_update",
                "Architecture": ARCHITECTURE,
                "PythonRuntime": RUNTIME,
            }
        )
    )

    def run(template):
        done = subprocess.run(
            [
                *("sam", "deploy", "--template", cloud.state / "sam" / "build" / template, "--stack-name", STACK),
                *("--config-file", PROJECT / "samconfig.toml", "--config-env", "local"),
                *("--s3-bucket", ARTIFACTS_BUCKET, "--no-progressbar"),
                *("--parameter-overrides", f"file://{parameters}"),
            ],
            cwd=PROJECT,
            env=cloud.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        outputs = cloud.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]["Outputs"]
        return {output["OutputKey"]: output["OutputValue"] for output in outputs}

    return run


@pytest.fixture(scope="module")
def database(cloud, deploy):
    """A session in the stack's database."""
    connection = dataclasses.replace(cloud.database, name="upgraded").connect()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def first_template(cloud):
    """The present template as it would be if there were only the first migration."""
    build = cloud.state / "sam" / "build"
    template = yaml.safe_load((build / "template.yaml").read_text())
    migrate = template["Resources"]["MigrateDatabaseFunction"]["Properties"]
    shutil.copytree(build / migrate["CodeUri"], build / "FirstSchema", dirs_exist_ok=True)
    for migration in (build / "FirstSchema" / "migrations").iterdir():
        if migration.name != FIRST_SCHEMA:
            migration.unlink()
    migrate["CodeUri"] = "FirstSchema"
    template["Resources"]["DatabaseSchema"]["Properties"]["Schema"] = FIRST_SCHEMA
    (build / "first.yaml").write_text(yaml.safe_dump(template, sort_keys=False))
    return "first.yaml"


def migrations(database):
    return [name for (name,) in database.run("SELECT name FROM schema_migrations ORDER BY name")]


def release_as_it_was_then(database, s3, bucket, drop):
    """Put into bucket and database what a release was when there was only the first schema."""
    image_key = f"releases/{PRODUCT}/{VERSION}/image.bin"
    stored = s3.put_object(Bucket=bucket, Key=image_key, Body=drop.image)
    database.run(
        "INSERT INTO products (product, latest_version, last_sequence) VALUES (:product, :version, 1)",
        product=PRODUCT,
        version=VERSION,
    )
    fields = drop.fields
    columns = {
        "release_id": drop.release_id,
        "manifest_sha256": drop.release_id,
        "product": PRODUCT,
        "version": VERSION,
        "sequence": fields["sequence"],
        "chip": fields["chip"],
        "changelog": fields["changelog"],
        "envelope": drop.manifest.decode(),
        "keyid": key().keyid,
        "image_key": image_key,
        "image_version_id": stored["VersionId"],
        "image_size": fields["firmware"]["size"],
        "image_sha256": fields["firmware"]["sha256"],
        "image_signature": fields["firmware"]["signature"],
        "allow_downgrade": False,
        "warnings": "[]",
        "state": "published",
        "execution_arn": "arn:aws:states:us-east-1:000000000000:execution:ReleasePipeline:first",
        "expires_at": fields["expires"],
    }
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    database.run(f"INSERT INTO releases ({names}, published_at) VALUES ({values}, now())", **columns)  # noqa: S608 - ours


def test_releases_of_the_first_schema_are_served_by_the_present_one(cloud, deploy, database, first_template):
    s3 = cloud.client("s3")
    bucket = deploy(first_template)["BucketName"]
    assert migrations(database) == [FIRST_SCHEMA]
    drop = make_drop(product=PRODUCT, version=VERSION)
    release_as_it_was_then(database, s3, bucket, drop)
    database.run("ALTER TABLE schema_migrations DROP COLUMN sha256")  # which came later

    outputs = deploy("template.yaml")
    assert outputs["BucketName"] == bucket
    assert migrations(database) == sorted(
        file.name for file in (PROJECT / "functions" / "migrate_database" / "migrations").glob("*.sql")
    )
    assert database.run("SELECT count(*) FROM schema_migrations WHERE sha256 IS NULL") == [[0]]
    session = requests.Session()
    api_key = cloud.client("apigateway").get_api_key(apiKey=outputs["ApiKeyId"], includeValue=True)["value"]
    session.headers.update({"x-api-key": api_key, "Accept": "application/octet-stream"})
    update = session.get(
        f"{outputs['ApiUrl']}/devices/02:00:00:00:0A:01/update",
        params={"product": PRODUCT, "version": "0.9.0"},
        timeout=30,
    )
    assert update.status_code == 200, update.text
    assert update.json()["release_id"] == drop.release_id
    image = session.get(update.json()["url"], timeout=30)
    assert image.content == drop.image
