"""The JSON schema of ``result.json``, made from the dataclasses; ``docs/result.schema.json`` is its copy.

``python -m sandbox.schema`` prints it.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from sandbox.result import RunResult


def result_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of what `RunResult.to_dict` gives; fields of later versions are allowed."""
    made = TypeAdapter(RunResult).json_schema(mode="serialization")
    version = {"const": RunResult.SCHEMA_VERSION, "title": "Schema Version"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "result.json of pec-homolog",
        "properties": {"schema_version": version, **made["properties"]},
        "required": ["schema_version", *made["properties"]],
    }


if __name__ == "__main__":
    print(json.dumps(result_schema(), indent=2))  # noqa: T201
