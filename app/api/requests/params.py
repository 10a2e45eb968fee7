"""Parameters in a request's URL: the model, the ref, and a check that every query parameter is known."""

import re
from collections import Counter
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request

from ...errors import InvalidRequest, SelectionError
from ...select.near import near
from ...values.checkpoint import ModelName, is_name
from ..openapi.introspect import query_parameters
from .paths import path_value


async def model_name(
    namespace: Annotated[str, Path(description="letters, digits, `.`, `_`, `-`", examples=["vision"])],
    name: Annotated[str, Path(description="letters, digits, `.`, `_`, `-`", examples=["resnet50"])],
) -> ModelName:
    for part in (namespace, name):
        if not is_name(part):
            raise InvalidRequest(
                f"{namespace}/{name} is not a valid model name: the namespace and the name must each have 1 to 128 "
                "letters, digits, '.', '_' or '-', begin with a letter or digit, and not contain '..'",
                code="bad-model-name",
            )
    return ModelName(namespace, name)


async def namespace_name(
    namespace: Annotated[str, Path(description="letters, digits, `.`, `_`, `-`", examples=["vision"])],
) -> str:
    if not is_name(namespace):
        raise InvalidRequest(
            f"{namespace[:200]!r} is not a valid namespace: it must have 1 to 128 letters, digits, '.', '_' or '-', "
            "begin with a letter or digit, and not contain '..'",
            code="bad-model-name",
        )
    return namespace


async def checkpoint_ref(
    ref: Annotated[
        str,
        Path(
            description="`12`, `v12`, `latest`, `best`, `min:NAME`, `max:NAME`, `epoch:N`, `step:N`", examples=["best"]
        ),
    ],
) -> str:
    return path_value(ref)


async def file_name(request: Request) -> str | None:
    name: str | None = request.path_params.get("filename")
    return name


Model = Annotated[ModelName, Depends(model_name)]
Namespace = Annotated[str, Depends(namespace_name)]
Ref = Annotated[str, Depends(checkpoint_ref)]
Run = Annotated[str | None, Query(description="only checkpoints of this run")]
FileName = Annotated[str | None, Depends(file_name)]
"""The last segment of a path that downloads under a name. Routes with such a path document it with UNDER_A_NAME."""

UNDER_A_NAME: dict[str, Any] = {
    "parameters": [
        {
            "in": "path",
            "name": "filename",
            "required": True,
            "description": "any file name; tools save the download under it",
            "schema": {"type": "string"},
        }
    ]
}
Cursor = Annotated[str | None, Query(description="`next` from the previous page")]


def position_of(cursor: str | None) -> int:
    """Parse a cursor into what never changes, a checkpoint's contents: a number."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 12):
        raise InvalidRequest("the cursor is invalid; use `next` from the previous page", code="bad-cursor")
    return int(cursor)


MAX_WAIT = 60
"""Longest wait of a request for news, in seconds: proxies cut connections that are silent for longer."""

Wait = Annotated[int, Query(ge=0, le=MAX_WAIT, description="seconds to wait for something new")]


def dynamic_parameters(**names: str) -> dict[str, Any]:
    """Return OpenAPI for query parameters whose names have a variable part in braces: name -> description."""
    return {
        "parameters": [
            {"in": "query", "name": name, "required": False, "description": text, "schema": {"type": "string"}}
            for name, text in names.items()
        ]
    }


def _is_named(name: str, pattern: str) -> bool:
    """Return whether ``name`` matches ``pattern``, as ``metric.acc`` matches ``metric.{name}``."""
    parts = re.split(r"\{[^}]*\}", pattern)
    return re.fullmatch(".+".join(map(re.escape, parts)), name, re.DOTALL) is not None


async def known_parameters(request: Request) -> None:
    """Refuse a query parameter that the route doesn't document, or that is repeated and is not a list.

    A typo in ``include`` must not send the whole file. The documented parameters are read from OpenAPI, so that the
    check always agrees with the documentation.
    """
    given = Counter(name for name, _ in request.query_params.multi_items())
    if not given:
        return
    schemas = query_parameters(request)
    for name, count in given.items():
        known = next((pattern for pattern in schemas if _is_named(name, pattern)), None)
        if known is None:
            close = near(name, schemas)
            meant = f"did you mean {close[0]!r}?" if close else f"valid parameters: {', '.join(schemas) or 'none'}"
            raise SelectionError(f"there is no parameter {name!r} here; {meant}", code="unknown-parameter", near=close)
        if count > 1 and schemas[known].get("type") != "array":
            raise InvalidRequest(
                f"the parameter {name!r} is given {count} times; give it once", code="repeated-parameter"
            )
