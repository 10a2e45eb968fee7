"""Bodies: as they arrive, or whole where they are JSON.

JSON is read after the token was checked, under a limit, and parsed by the handler, off the event loop.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from ..errors import IncompleteUpload
from .intake import check_size, declared_size
from .protocol import was_too_slow

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


async def chunks_of(request: Request, limit: int | None) -> AsyncIterator[bytes]:
    """The body. Raises IncompleteUpload when the client goes away before its end, or stops sending; TooLarge at the
    first byte beyond ``limit``.
    """
    size = 0
    try:
        async for chunk in request.stream():
            if chunk:
                size += len(chunk)
                check_size(size, limit)
                yield chunk
    except ClientDisconnect as error:
        if was_too_slow(request.scope):
            raise IncompleteUpload("the body stopped coming", code="request-timeout") from error
        raise IncompleteUpload("the connection ended before the body did") from error


async def json_body(request: Request) -> JsonBody:
    declared_size(request, MAX_BYTES)
    data = bytearray()
    async for chunk in chunks_of(request, MAX_BYTES):
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
