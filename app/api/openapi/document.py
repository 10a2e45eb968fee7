"""The OpenAPI document of the application, and the two routes that show it."""

import asyncio
from functools import cached_property
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from .page import HEADERS, page_of
from .problems import add_problem_schema

_made: dict[str, dict[str, Any]] = {}


def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the document of ``app``, which has all routes. A process makes it once: that takes a quarter of a second,
    and requests with parameters need it.
    """
    if app.version not in _made:
        _made[app.version] = app.openapi()
        add_problem_schema(_made[app.version])
    return _made[app.version]


class Shown:
    """The handlers of ``/openapi.json``, ``/docs``, and ``/redoc``, where people of other FastAPI servers look."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    @cached_property
    def _page(self) -> bytes:
        return page_of(self._document).encode()

    async def as_json(self, _: Request) -> Response:
        return JSONResponse(self._document)

    async def as_page(self, _: Request) -> Response:
        page = await asyncio.to_thread(lambda: self._page)
        return Response(page, headers=HEADERS, media_type="text/html; charset=utf-8")

    async def elsewhere(self, _: Request) -> Response:
        return Response(status_code=307, headers={"Location": "docs"})
