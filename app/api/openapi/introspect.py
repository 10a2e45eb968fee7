"""The server's own OpenAPI document, asked: what it says there is, there is, and nothing else."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI, Request
from starlette.routing import compile_path


@cache
def _regex(template: str) -> re.Pattern[str]:
    return compile_path(template)[0]


def query_parameters(request: Request) -> Mapping[str, Mapping[str, Any]]:
    """The query parameters of the request's route: name -> JSON schema. A name may have a part in braces.

    What lets a caller in by the query is one of them.
    """
    document = request.app.openapi()
    operation = document["paths"][request.scope["route"].path_format][request.method.lower()]
    schemes = (
        document["components"]["securitySchemes"][name] for each in operation.get("security", ()) for name in each
    )
    keys = {scheme["name"]: {"type": "string"} for scheme in schemes if scheme.get("in") == "query"}
    given = {each["name"]: each["schema"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    return {**given, **keys}


def methods_at(app: FastAPI, path: str) -> list[str]:
    """The methods that any route takes at ``path``."""
    methods: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        if _regex(template).fullmatch(path):
            methods |= {method.upper() for method in operations}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)
