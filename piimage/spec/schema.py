"""The JSON Schema of cluster.yaml, for editors and for whoever writes such files with a program."""

from __future__ import annotations

from typing import Any

from piimage.spec import model

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema as plain values; what holds across mappings only `piimage validate` knows."""
    found = model.Spec.model_json_schema(mode="validation")
    return {
        "$schema": DIALECT,
        **found,
        "title": "cluster.yaml",
        "description": "A Raspberry Pi cluster for piimage",
    }
