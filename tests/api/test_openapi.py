"""The OpenAPI document, held to what generators of clients need."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.openapi import operations


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    found = set(references(document))
    assert "#/components/schemas/ProblemView" in found
    for reference in found:
        node = document
        for name in reference.removeprefix("#/").split("/"):
            node = node[name]


def test_a_path_parameter_is_always_there_and_never_null(http: httpx.Client) -> None:
    for name, operation in operations(http.get("/openapi.json").json()):
        given = {each["name"]: each for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert set(given) == {part.strip("{}") for part in name.replace("-", "/").split("/") if part.startswith("{")}
        for each in given.values():
            assert (each["required"], each["schema"]["type"] in {"string", "integer"}) == (True, True), (name, each)


def test_every_operation_has_a_name_of_its_own(http: httpx.Client) -> None:
    names = Counter(operation["operationId"] for _, operation in operations(http.get("/openapi.json").json()))
    assert [name for name, count in names.items() if count > 1] == []
