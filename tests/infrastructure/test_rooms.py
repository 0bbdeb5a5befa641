"""What the rooms of ota_core promise beyond the imports that Import Linter checks."""

import ast
import subprocess
import sys

import pytest

# What tells the time or opens a file without an import that would show it.
IMPURE_CALLS = {"now", "utcnow", "today", "open", "input", "print"}


@pytest.mark.parametrize("room", ["formats", "rules"])
def test_pure_rooms_never_read_the_clock_or_open_a_file(project, room):
    files = list((project / "layers/ota_core/ota_core" / room).glob("*.py"))
    assert len(files) > 3
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
                assert name not in IMPURE_CALLS, f"{file.name}:{node.lineno} calls {name}"


@pytest.mark.parametrize(
    ("function", "forbidden"),
    [
        ("serve_console", {"boto3", "pg8000"}),
        ("authorize_operator", {"pg8000"}),
        ("publish_mqtt", {"pg8000"}),
        ("settle_drop", {"pg8000"}),
        ("validate_signature", {"pg8000"}),
    ],
)
def test_function_loads_no_library_that_it_does_not_use(project, function, forbidden):
    # In a process of its own, whose modules no other test has loaded.
    code = (
        "import sys\n"
        "try:\n    import handler\nexcept Exception as error:\n"
        "    assert getattr(error, 'code', None) == 'setting_missing', repr(error)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project / "functions" / function,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "ota_core" in loaded
    assert not loaded & forbidden
