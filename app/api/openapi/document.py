"""The OpenAPI document of the application, and the two routes that show it."""

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from .page import HEADERS, page_of
from .problems import add_problem_schema


class Document:
    """The document that ``generate`` makes, at its first use: that takes a quarter of a second, and most servers are
    never asked for it. Its routes make it in a thread.
    """

    def __init__(self, generate: Callable[[], dict[str, Any]]) -> None:
        self._generate = generate

    @cached_property
    def content(self) -> dict[str, Any]:
        document = self._generate()
        add_problem_schema(document)
        return document

    @cached_property
    def _page(self) -> bytes:
        return page_of(self.content).encode()

    async def as_json(self, _: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(lambda: self.content))

    async def as_page(self, _: Request) -> Response:
        page = await asyncio.to_thread(lambda: self._page)
        return Response(page, headers=HEADERS, media_type="text/html; charset=utf-8")
