"""``/docs``: the OpenAPI document as one page, for people. It runs no script, and loads nothing from elsewhere."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Headers that limit the page to showing text, even if somebody injects a script."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, summary { font-family: ui-monospace, monospace; font-size: 0.9em; }
summary { cursor: pointer; padding: 0.2rem 0; } summary b { display: inline-block; min-width: 5rem; }
details { border-top: 1px solid #ccc; } details > * { margin-left: 1.2rem; } summary { margin-left: 0; }
td { padding: 0.1rem 1rem 0.1rem 0; vertical-align: top; } pre { overflow-x: auto; }
"""


def page_of(document: Mapping[str, Any]) -> str:
    return "".join(_parts(document))


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    yield f"<h1>{title}</h1><p>{escape(document['info']['description'])} "
    yield '<a href="openapi.json">openapi.json</a> is the same for programs.</p>'
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from _operation(method.upper(), path, operation)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details><summary><b>{method}</b> {escape(path)} \u2014 {escape(operation['summary'])}</summary>"
    yield f"<p>{escape(operation['description'])}</p>"
    ways = sorted({name for each in operation.get("security", ()) for name in each})
    yield f"<p>Credentials: {escape(', '.join(ways) or 'none')}.</p>"
    parameters = operation.get("parameters", ())
    yield from _table("Parameters", ((_parameter(each), description_of(each)) for each in parameters))
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, <code>{escape(kind)}</code>:</p>"
        yield from _table("", _fields(body.get("schema", {})))
    yield from _table("Responses", ((code, answer["description"]) for code, answer in operation["responses"].items()))
    yield "</details>"


def _parameter(parameter: Mapping[str, Any]) -> str:
    return f"{parameter['name']} ({parameter['in']}{', required' if parameter.get('required') else ''})"


def description_of(parameter: Mapping[str, Any]) -> str:
    return str(parameter.get("description") or parameter.get("schema", {}).get("description", ""))


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, each in schema.get("properties", {}).items():
        yield name, str(each.get("description") or each.get("type", ""))


def _table(title: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    lines = [f"<tr><td><code>{escape(name)}</code><td>{escape(text)}" for name, text in rows]
    if lines:
        yield f"<p>{title}</p><table>{''.join(lines)}</table>"
