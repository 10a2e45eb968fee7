"""Bodies: as they arrive, or whole where they are JSON.

JSON is read after the token was checked, under a limit, and parsed by the handler, off the event loop.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from ..errors import IncompleteUpload
from .body_reader import read_into
from .intake import check_size, declared_size
from .limits import was_too_slow

MAX_BYTES = 64 * 1024 * 1024
"""A target of 400,000 keys takes some 40 MB."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class JsonBody:
    data: bytes

    def read(self, model: type[M]) -> M:
        """Raises RequestValidationError: it is the client's mistake."""
        try:
            return model.model_validate_json(self.data)
        except ValidationError as error:
            mistakes = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestValidationError(mistakes) from error


class RequestBody:
    """The body of ``request``: read into buffers, without a copy on the way if it is long, or in chunks as they come.

    Raises IncompleteUpload when the client goes away before its end, or stops sending; TooLarge at the first byte
    beyond ``limit``.
    """

    def __init__(self, request: Request, limit: int | None) -> None:
        self._request = request
        self._limit = limit
        self._size = 0
        self._left = memoryview(b"")  # of a message that came as it was
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
            if was_too_slow(self._request.scope):
                raise IncompleteUpload("the body stopped coming", code="request-timeout")
            raise IncompleteUpload("the connection ended before the body did")
        data: bytes | memoryview = message.get("body", b"")
        self._more = message.get("more_body", False)
        self._size += len(data)
        check_size(self._size, self._limit)
        return data

    async def chunks(self) -> AsyncIterator[bytes]:
        while self._more:
            if data := await self._next():
                yield bytes(data)


async def json_body(request: Request) -> JsonBody:
    declared_size(request, MAX_BYTES)
    data = bytearray()
    async for chunk in RequestBody(request, MAX_BYTES).chunks():
        data += chunk
    return JsonBody(bytes(data))


Body = Annotated[JsonBody, Depends(json_body)]


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
