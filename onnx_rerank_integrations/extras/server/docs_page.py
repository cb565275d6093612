"""The OpenAPI document as a page, without a script and without anything from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark } body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
padding: 0 1rem } code, pre { font-family: ui-monospace, monospace; font-size: .9em } pre { overflow-x: auto }
table { border-collapse: collapse } th, td { text-align: left; padding: .25rem 1rem .25rem 0; vertical-align: top }
h2 { margin-top: 2.5rem }
"""


def docs_page(openapi: Mapping[str, Any]) -> str:
    """HTML of every operation: what it takes, field by field, and what it answers."""
    schemas = openapi["components"]["schemas"]
    operations = "".join(
        _operation(method, path, operation, schemas)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    )
    title = escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><main>'
        f"<h1>{title}</h1><p>{escape(openapi['info']['description'])}</p>"
        '<p><a href="openapi.json">The OpenAPI document</a> · <a href=".">Try it</a></p>'
        f"{operations}</main></body></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}</p>"]
    if text := operation.get("description"):
        parts.append(f"<p>{escape(text)}</p>")
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        parts += [f"<h3>{escape(name)}</h3>{_fields(schemas[name])}" for name in _names(schema)]
    answers = ", ".join(
        f"{status} ({escape(found['description'])})" for status, found in operation["responses"].items()
    )
    return "".join([*parts, f"<p>Answers: {answers}.</p>"])


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(field))}</td>"
        f"<td>{'required' if name in required else escape(_default(field))}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table><tr><th>field</th><th>type</th><th>default</th><th></th></tr>{rows}</table>"


def _default(field: Mapping[str, Any]) -> str:
    return json.dumps(field["default"]) if field.get("default") is not None else ""


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if "enum" in schema:
        return " or ".join(json.dumps(one) for one in schema["enum"])
    return str(schema.get("type") or schema.get("$ref", "").rsplit("/", 1)[-1])


def _names(schema: Mapping[str, Any]) -> Iterator[str]:
    """The schemas that a request may have."""
    for one in schema.get("oneOf", [schema]):
        yield one["$ref"].rsplit("/", 1)[-1]
