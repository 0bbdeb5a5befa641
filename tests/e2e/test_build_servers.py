"""The script of docs/build-servers.md, as a build server runs it: with a token, the stack's role, and the AWS CLI."""

import base64
import hmac
import json
import os
import subprocess
import uuid
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from support.drops import make_drop
from support.esp_images import app_image
from support.shell_blocks import shell_blocks

PROJECT = Path(__file__).resolve().parents[2]
SUBJECT = "repo:example/firmware:ref:refs/tags/v1"


def token(cloud, **claims):
    """A token like GitHub's. The local cloud believes the ones that are signed with its own secret."""
    parts = (
        {"alg": "RS256"},
        {"iss": "https://token.actions.githubusercontent.com", "aud": "sts.amazonaws.com"} | claims,
    )
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    secret = cloud.emulator.secret_access_key.encode()
    return ".".join([*encoded, hmac.new(secret, ".".join(encoded).encode(), "sha256").hexdigest()])


@pytest.fixture
def build(cloud, product, tmp_path):
    """A firmware's folder on a build server; gives what runs release.sh there."""
    [script] = shell_blocks(PROJECT / "docs" / "build-servers.md", "release.sh")
    (tmp_path / "release.sh").write_text(script)
    (tmp_path / "token").write_text(token(cloud, sub=SUBJECT))
    programs = tmp_path / "bin"
    programs.mkdir()
    environment = {name: value for name, value in cloud.environment.items() if not name.startswith("AWS_ACCESS_KEY")}
    environment.pop("AWS_SECRET_ACCESS_KEY")
    environment |= {
        "PATH": f"{programs}{os.pathsep}{environment['PATH']}",
        "AWS_ROLE_ARN": cloud.outputs["BuildServerRoleArn"],
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "HOME": str(tmp_path),  # where the AWS CLI keeps a role's credentials, perhaps those of an earlier cloud
        "PRODUCT": product,
    }

    def run(version, **changes):
        (tmp_path / "firmware.bin").write_bytes(app_image(version=version))
        variables = {"VERSION": version, "BUILD": uuid.uuid4().hex, **changes}
        return subprocess.run(
            ["sh", "release.sh"],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


def test_good_build_is_released_and_a_worse_one_fails_with_the_reason(build, pipeline, product):
    done = build("1.4.0", VERSION="v1.4.0")
    assert done.returncode == 0, done.stderr
    assert '"state": "published"' in done.stdout
    assert '"version": "1.4.0"' in done.stdout
    assert [release["state"] for release in pipeline.releases(product)] == ["published"]

    done = build("1.3.0")
    assert done.returncode == 1
    assert '"code": "version_downgrade"' in done.stdout
    assert '"message": "the version is 1.3.0; expected 1.4.0 or higher' in done.stdout
    assert len(pipeline.releases(product)) == 1


def test_build_that_gets_no_answer_fails_and_says_what_it_asked(build, tmp_path):
    # It signs nothing, and an image alone waits for its manifest.
    signer = tmp_path / "bin" / "ota-sign"
    signer.write_text("#!/bin/sh\n")
    signer.chmod(0o755)
    done = build("1.4.0", TRIES="1")
    assert done.returncode == 1
    assert "The pipeline has not answered" in done.stderr
    assert "An error occurred (40" in done.stderr


def test_earlier_release_that_is_planted_in_the_builds_folder_is_no_success(build, pipeline, product, tmp_path):
    earlier = make_drop(product=product, sequence=1000)
    for stem in (f"{product}/earlier/firmware", f"{product}/next/firmware"):
        pipeline.settle(pipeline.drop(stem, earlier))
    assert json.loads(pipeline.read(f"status/{product}/next/firmware.json"))["state"] == "repeated"

    done = build("1.5.0", BUILD="next")
    assert done.returncode == 0, done.stderr
    assert '"version": "1.5.0"' in done.stdout

    pipeline.settle(pipeline.drop(f"{product}/lost/firmware", earlier))
    signer = tmp_path / "bin" / "ota-sign"
    signer.write_text(f"#!/bin/sh\necho release_id={'0' * 32}\n")
    signer.chmod(0o755)
    done = build("1.6.0", BUILD="lost", TRIES="1")
    assert done.returncode == 1
    assert earlier.release_id in done.stderr, "what was found instead"


def test_commit_message_that_names_the_key_is_a_changelog_and_no_more(build, pipeline, product, cloud):
    text = f"@{cloud.environment['OTA_SIGNING_KEY']}"
    assert build("1.4.0", CHANGELOG=text).returncode == 0
    assert [release["changelog"] for release in pipeline.releases(product)] == [text]


def test_token_of_another_repository_gets_no_role(cloud):
    sts = boto3.client("sts", endpoint_url=cloud.endpoint, region_name="us-east-1")
    for claims in ({"sub": "repo:example/other:ref:refs/tags/v1"}, {"sub": SUBJECT, "aud": "somebody"}):
        with pytest.raises(ClientError, match="AccessDenied"):
            sts.assume_role_with_web_identity(
                RoleArn=cloud.outputs["BuildServerRoleArn"],
                RoleSessionName="build",
                WebIdentityToken=token(cloud, **claims),
            )
