"""docs/build-servers.md: the recipes give the script what it asks for, and store no key of AWS."""

import re

import pytest
import yaml
from support.shell_blocks import shell_blocks


@pytest.fixture(scope="module")
def page(project):
    return project / "docs" / "build-servers.md"


@pytest.fixture(scope="module")
def recipes(page):
    """The YAML blocks: GitHub's, GitLab's."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]


@pytest.fixture(scope="module")
def wanted(page):
    """The variables without which the script ends at once."""
    [script] = shell_blocks(page, "release.sh")
    return set(re.findall(r"\$\{(\w+):\?\}", script))


def test_github_runs_the_script_with_the_role_and_everything_that_it_wants(recipes, wanted):
    github = recipes[0]
    assert github["permissions"] == {"contents": "read", "id-token": "write"}
    steps = github["jobs"]["release"]["steps"]
    [script] = [step for step in steps if step.get("run") == "sh release.sh"]
    assert script["env"].keys() == wanted
    [login] = [step["with"] for step in steps if "configure-aws-credentials" in step.get("uses", "")]
    assert login.keys() == {"role-to-assume", "aws-region"}


def test_gitlab_runs_the_script_with_the_role_and_everything_that_it_wants(recipes, wanted):
    job = recipes[1]["release"]
    # The bucket is a variable of the project.
    assert wanted <= job["variables"].keys() | {"OTA_BUCKET"}
    assert {"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} <= job["variables"].keys()
    assert job["id_tokens"]["AWS_TOKEN"]["aud"] == "sts.amazonaws.com"
    assert job["script"][-1] == "sh release.sh"


def test_no_recipe_stores_a_key_of_aws(page):
    assert "AWS_SECRET_ACCESS_KEY" not in page.read_text()


def test_role_believes_only_tokens_for_aws_of_the_subject_that_was_named(resources):
    trust = resources["BuildServerRole"]["Properties"]["AssumeRolePolicyDocument"]["Fn::Sub"]
    assert '"StringEquals": {"${BuildServerIssuer}:aud": "sts.amazonaws.com"}' in trust
    assert '"StringLike": {"${BuildServerIssuer}:sub": "${BuildServerSubject}"}' in trust


@pytest.mark.parametrize("subject", ["*", "repo:*", "repo:?rg/x:ref:y", "repo:", "my-org", 'repo:o/r"'])
def test_subject_that_names_nobody_is_refused(template, subject):
    pattern = template["Parameters"]["BuildServerSubject"]["AllowedPattern"]
    assert re.fullmatch(pattern, subject) is None


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "repo:my-org/my-firmware:ref:refs/tags/v*",
        "repo:my-org/my-firmware:environment:production",
        "project_path:my-group/my-firmware:ref_type:tag:ref:v*",
    ],
)
def test_subject_of_a_project_is_taken(template, subject):
    assert re.fullmatch(template["Parameters"]["BuildServerSubject"]["AllowedPattern"], subject)
