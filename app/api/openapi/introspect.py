"""Look-ups in the server's own OpenAPI document, which lists every parameter and method."""

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
    """Return the query parameters of the request's route: name -> JSON schema. A name may have a part in braces.

    Credentials in the query are included.
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
    """Return the methods that routes take at ``path``."""
    methods: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        if _regex(template).fullmatch(path):
            methods |= {method.upper() for method in operations}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)
