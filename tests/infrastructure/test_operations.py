"""docs/operations.md: its commands read what the stack puts out."""

import re


def test_outputs_that_the_commands_read_are_there(project, template):
    page = (project / "docs" / "operations.md").read_text()
    named = set(re.findall(r"\$\(output (\w+)\)", page))
    assert len(named) > 2
    assert named <= template["Outputs"].keys()
