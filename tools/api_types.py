"""Print the schemas of an OpenAPI definition as TypeScript's types, so that JavaScript is checked against the API."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

_TYPES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean"}


def declare(definition: dict[str, Any]) -> str:
    """A declaration of the definition's schemas, in a namespace `Api`."""
    schemas = definition["components"]["schemas"]
    types = [f"  type {name} = {express(schema)};" for name, schema in schemas.items()]
    return "\n".join(["declare namespace Api {", *types, "}"])


def express(schema: dict[str, Any]) -> str:
    """A schema as TypeScript writes it; what has no equal there fails."""
    null = " | null" if schema.get("nullable") else ""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "allOf" in schema:
        return " & ".join(express(part) for part in schema["allOf"]) + null
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"]) + null
    match schema["type"]:
        case "array":
            return f"Array<{express(schema['items'])}>{null}"
        case "object":
            return _express_object(schema) + null
        case simple:
            return _TYPES[simple] + null


def _express_object(schema: dict[str, Any]) -> str:
    if "properties" not in schema:
        others = schema.get("additionalProperties")
        return f"Record<string, {express(others) if others else 'unknown'}>"
    required = schema.get("required", ())
    fields = (
        f"{name}{'' if name in required else '?'}: {express(field)}" for name, field in schema["properties"].items()
    )
    return f"{{ {'; '.join(fields)} }}"


if __name__ == "__main__":
    sys.stdout.write(declare(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))) + "\n")
