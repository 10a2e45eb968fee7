"""Request bodies: streams of bytes, or whole JSON.

JSON is read after the token was checked, under the limit of its route, and parsed by the handler, off the event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel

from ...concurrency.cancellation import current
from ...errors import IncompleteUpload
from ..admission import check_size, declared_size
from ..http1.body_reader import read_into
from ..http1.limits import why_cut
from ..services import Services, ServicesDep
from .auth import Caller, judge_again
from .json_reader import read_json

SMALL = 1024 * 1024
"""Most bytes of JSON that a person could have written."""

LARGE = 64 * 1024 * 1024
"""Most bytes of JSON that describes each tensor of a checkpoint: a target of 400,000 keys takes some 40 MB."""

COST = 3
"""Bytes of memory that one byte of JSON takes, parsed objects included."""

PIECE = 1024 * 1024
"""Most bytes of a JSON body in one buffer."""

LEAST_RATE = 64 * 1024
"""Bytes a second. JSON has the time that this rate takes plus SPARE_SECONDS: it holds memory until it is whole."""

SPARE_SECONDS = 30

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class JsonBody:
    pieces: list[bytearray] = field(default_factory=list)

    def add(self, chunk: bytes) -> None:
        if self.pieces and len(self.pieces[-1]) + len(chunk) <= PIECE:
            self.pieces[-1] += chunk
        else:
            self.pieces.append(bytearray(chunk))

    def read(self, model: type[M]) -> M:
        """Parse the body. Call this once: the bytes are freed on the way.

        Raises RequestValidationError, with the first mistake in it.
        """
        return read_json(self._taken(), model)

    def whole(self) -> bytes:
        """Return the bytes. Call this once, as ``read``."""
        return b"".join(self._taken())

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that are not empty. Call this once, as ``read``."""
        rest = b""
        for piece in self._taken():
            *lines, rest = (rest + piece).split(b"\n")
            yield from filter(None, lines)
        if rest:
            yield rest

    def _taken(self) -> Iterator[bytes]:
        self.pieces.reverse()
        while self.pieces:
            yield bytes(self.pieces.pop())


class RequestBody:
    """The body of ``request``: read into buffers, without a copy on the way if it is long, or in chunks as they arrive.

    Raises IncompleteUpload when the client disconnects before the body's end, or stops sending; TooLarge at the first
    byte beyond ``limit``.
    """

    def __init__(self, request: Request, limit: int | None) -> None:
        self._request = request
        self._limit = limit
        self._size = 0
        self._left = memoryview(b"")  # the rest of a message that has its own bytes
        self._more = True

    async def readinto(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer) and (self._left or self._more):
            if not self._left:
                data = await self._next(buffer[filled:])
                if isinstance(data, memoryview):
                    filled += len(data)
                    continue
                self._left = memoryview(data)
            count = min(len(self._left), len(buffer) - filled)
            buffer[filled : filled + count] = self._left[:count]
            self._left = self._left[count:]
            filled += count
        return filled

    async def _next(self, buffer: memoryview | None = None) -> bytes | memoryview:
        if buffer is not None:
            read_into(self._request.scope, buffer)
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            if (why := why_cut(self._request.scope)) is not None:
                code, detail = why
                raise IncompleteUpload(detail, code=code)
            raise IncompleteUpload("the connection closed before the whole body arrived")
        data: bytes | memoryview = message.get("body", b"")
        self._more = message.get("more_body", False)
        self._size += len(data)
        check_size(self._size, self._limit)
        return data

    async def chunks(self) -> AsyncIterator[bytes]:
        while self._more:
            if data := await self._next():
                yield bytes(data)


@asynccontextmanager
async def json_body(request: Request, services: Services, limit: int, spare: int = 0) -> AsyncIterator[JsonBody]:
    """Read the body of ``request``, with memory reserved for it and for ``spare`` bytes more.

    Raises TooLarge, ServerBusy, IncompleteUpload; HTTPException if the caller's token was revoked or has expired
    meanwhile.
    """
    size = declared_size(request, limit)
    at_most = limit if size is None else size
    body = JsonBody()
    async with services.streams.memory.reserved(COST * at_most + spare, current().owner):
        try:
            async with asyncio.timeout(SPARE_SECONDS + at_most / LEAST_RATE):
                async for chunk in RequestBody(request, limit).chunks():
                    body.add(chunk)
        except TimeoutError:
            detail = f"the body arrived at less than {LEAST_RATE:,} bytes a second, the lowest rate accepted"
            raise IncompleteUpload(detail, code="request-timeout") from None
        await judge_again(request, services)
        yield body


async def _small_body(request: Request, services: ServicesDep, _: Caller) -> AsyncIterator[JsonBody]:
    async with json_body(request, services, SMALL) as body:
        yield body


JsonBodyDep = Annotated[JsonBody, Depends(_small_body)]
"""JSON of at most SMALL bytes."""


def documented_body(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI for a route that reads a ``model``."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        match node:
            case {"$ref": str(ref)}:
                return inlined(definitions[ref.rpartition("/")[2]])
            case dict():
                return {name: inlined(child) for name, child in node.items()}
            case list():
                return [inlined(child) for child in node]
        return node

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined(schema)}}}}
