"""The README's tables say what is there."""

import re

from ota_core.errors import RejectionCode


def rows(readme, heading):
    table = readme[readme.index(heading) :].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_readme_explains_every_rejection_code(project):
    readme = (project / "README.md").read_text()
    assert rows(readme, "| code |") == [code.value for code in RejectionCode]


def test_readme_explains_every_parameter_as_the_template_does(project, template):
    readme = (project / "README.md").read_text()
    assert rows(readme, "| parameter |") == list(template["Parameters"])
    for name, parameter in template["Parameters"].items():
        default = f" Default: `{parameter['Default']}`." if parameter.get("Default", "") != "" else ""
        assert f"\n| `{name}` | {parameter['Description']}{default} |\n" in readme


def test_links_of_the_documentation_lead_somewhere(project):
    pages = [project / "README.md", *(project / "docs").rglob("*.md"), project / "firmware" / "README.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(project)}: {target}"
