"""Write the page of all routes, from the OpenAPI document: ``python docs/site/routes.py FILE``."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app.api.openapi.page import description_of
from app.main import create_app
from app.settings import Settings


def main(file: str) -> None:
    with TemporaryDirectory() as folder:
        document = create_app(Settings(data_dir=Path(folder))).openapi()
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("\n".join(page(document)) + "\n")


def page(document: Mapping[str, Any]) -> Iterator[str]:
    yield "# Every route\n"
    yield (
        "Made from the OpenAPI document, which each server has at `/openapi.json`. "
        "[HTTP](http-api.md) explains them with examples.\n"
    )
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"## {operation['summary']} {{: #{operation['operationId']} }}\n"
            yield f"`{method.upper()} {path}`\n"
            yield operation.get("description", "") + "\n"
            yield from parameters(operation.get("parameters", ()))
            yield from answers(operation["responses"])


def parameters(given: Any) -> Iterator[str]:
    rows = [(each["name"], each["in"], text_of(each)) for each in given]
    if rows:
        yield "| parameter | in | |"
        yield "| --- | --- | --- |"
        for name, where, text in rows:
            yield f"| `{name}` | {where} | {text} |"
        yield ""


def text_of(parameter: Mapping[str, Any]) -> str:
    default = parameter.get("schema", {}).get("default")
    return in_a_cell(description_of(parameter)) + ("" if default is None else f" (`{default}` if left out)")


def answers(responses: Mapping[str, Any]) -> Iterator[str]:
    yield "| answer | |"
    yield "| --- | --- |"
    for status, response in responses.items():
        yield f"| {status} | {in_a_cell(response['description'])} |"
    yield ""


def in_a_cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    main(sys.argv[1])
