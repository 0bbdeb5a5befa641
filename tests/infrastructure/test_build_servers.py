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
    steps = recipes[0]["jobs"]["release"]["steps"]
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
    assert job["script"][-1] == "sh firmware/release.sh"


def commands(job):
    return "\n".join(job["script"] if "script" in job else [step.get("run", "") for step in job["steps"]])


def test_job_that_builds_can_neither_sign_nor_release(recipes):
    """Any package that a build runs could do what its job can."""
    github, gitlab = recipes
    assert github["permissions"] == {}
    assert github["jobs"]["build"]["permissions"] == {"contents": "read"}
    assert github["jobs"]["release"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert "id_tokens" not in gitlab["build"]
    for jobs in (github["jobs"], gitlab):
        assert jobs.keys() >= {"build", "release"}
        assert "pio run" in commands(jobs["build"])
        assert "pio " not in commands(jobs["release"])
        assert "OTA_" not in str(jobs["build"])


def test_job_that_signs_takes_one_file_from_the_build_and_no_place_for_another(recipes):
    github, gitlab = recipes
    [download] = [step for step in github["jobs"]["release"]["steps"] if "download-artifact" in step.get("uses", "")]
    assert download["with"]["path"] == "built"
    assert re.findall(r"\S*built\S*.*", commands(github["jobs"]["release"])) == ["built/firmware.bin ."]
    release = gitlab["release"]
    assert release["variables"]["GIT_STRATEGY"] == "none"
    assert release["script"][0].startswith("cd ")
    assert re.findall(r"\S*CI_PROJECT_DIR\S*.*", commands(release)) == ['"$CI_PROJECT_DIR/firmware.bin" .']


def test_everything_that_a_recipe_runs_is_pinned(page, recipes):
    actions = re.findall(r"uses: (\S+)(.*)", page.read_text())
    assert len(actions) > 5
    for action, version in actions:
        assert re.fullmatch(r"[a-z-]+/[a-z-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", version), action
    jobs = [*recipes[0]["jobs"].values(), *recipes[1].values()]
    installs = [line for job in jobs for line in commands(job).splitlines() if "pip install" in line]
    assert len(installs) == 6
    from_packages = [line for line in installs if "--require-hashes" in line]
    assert all("--only-binary :all:" in line for line in from_packages)
    assert all("--no-index --no-deps --no-build-isolation" in line for line in set(installs) - set(from_packages))
    assert all("@sha256:" in job["image"] for job in recipes[1].values())


def test_no_recipe_stores_a_key_of_aws(page):
    assert "AWS_SECRET_ACCESS_KEY" not in page.read_text()


def test_role_believes_only_tokens_for_aws_of_the_subject_that_was_named(resources):
    trust = resources["BuildServerRole"]["Properties"]["AssumeRolePolicyDocument"]["Fn::Sub"]
    assert '"StringEquals": {"${BuildServerIssuer}:aud": "sts.amazonaws.com"}' in trust
    assert '"StringLike": {"${BuildServerIssuer}:sub": "${BuildServerSubject}"}' in trust


@pytest.mark.parametrize(
    "subject",
    [
        *("*", "repo:*", "repo:", "my-org", "repo:m*", "repo:my-org", "repo:my-org/*", "repo:my-org/firm*"),
        *("repo:my-org/?irmware:*", "repo:my-org*/my-firmware:ref:refs/heads/main", "repo:?rg/x:ref:y"),
        *("repo:my-org/my-firmware", "repo:my-org/:ref:refs/heads/main", "repo:/x:ref:y", "repo:my-org:my-firmware:*"),
        *(
            "repo:o/r*:ref:refs/heads/main",
            "repo:o/*:r/x",
            "repo:${*}/r:x",
            "repo:\\u002a/r:x",
            'repo:o/r:"',
            "repo:o/r:\\",
        ),
        *("project_path:my-group/*", "project_path:my-group/sub/*", "project_path:*/my-firmware:ref_type:tag:ref:v1"),
    ],
)
def test_subject_that_names_no_repository_is_refused(template, subject):
    pattern = template["Parameters"]["BuildServerSubject"]["AllowedPattern"]
    assert re.fullmatch(pattern, subject) is None


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "repo:my-org/my-firmware:ref:refs/tags/v*",
        "repo:my-org/my_firmware.2:*",
        "repo:my-org@123/my-firmware@456:environment:production",
        "project_path:my-group/my-firmware:ref_type:tag:ref:v*",
        "project_path:my-group/sub/my-firmware:ref_type:tag:ref:v*",
    ],
)
def test_subject_of_a_repository_is_taken(template, subject):
    assert re.fullmatch(template["Parameters"]["BuildServerSubject"]["AllowedPattern"], subject)
