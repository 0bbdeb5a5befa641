"""TypeScript's types of an API's schemas, against which the console's JavaScript is checked."""

import pytest
from api_types import declare, express

TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (TEXT | {"format": "date-time"}, "string"),
        ({"type": "integer", "nullable": True}, "number | null"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "string", "enum": ["a", "b"]}, '"a" | "b"'),
        ({"$ref": "#/components/schemas/Wave"}, "Wave"),
        ({"type": "array", "items": {"type": "number"}, "nullable": True}, "Array<number> | null"),
        ({"type": "object", "required": ["a"], "properties": {"a": TEXT, "b": TEXT}}, "{ a: string; b?: string }"),
        ({"type": "object"}, "Record<string, unknown>"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "Record<string, number>"),
        (
            {"allOf": [{"$ref": "#/components/schemas/Wave"}, {"type": "object", "properties": {"b": TEXT}}]},
            "Wave & { b?: string }",
        ),
    ],
)
def test_schema_becomes_a_type(schema, expected):
    assert express(schema) == expected


def test_schema_that_has_no_equal_is_refused():
    with pytest.raises(KeyError):
        express({"oneOf": [TEXT]})


def test_every_schema_is_declared():
    definition = {"components": {"schemas": {"Wave": {"type": "object"}, "Name": TEXT}}}
    assert declare(definition).splitlines() == [
        "declare namespace Api {",
        "  type Wave = Record<string, unknown>;",
        "  type Name = string;",
        "}",
    ]
