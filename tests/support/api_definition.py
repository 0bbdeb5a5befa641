"""What the operators' API promises of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft4Validator

DEFINITION = Path(__file__).resolve().parents[2] / "api" / "operator.yaml"


def assert_promised(answer: object, schema: str) -> None:
    """Check an answer against a schema of the definition."""
    components = {"schemas": _as_json_schema(yaml.safe_load(DEFINITION.read_text())["components"]["schemas"])}
    Draft4Validator({"components": components, "$ref": f"#/components/schemas/{schema}"}).validate(answer)


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0 says `nullable` where JSON Schema lists another type."""
    if isinstance(node, list):
        return [_as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    converted = {name: _as_json_schema(value) for name, value in node.items()}
    if converted.pop("nullable", False):
        converted["type"] = [converted["type"], "null"]
    return converted
