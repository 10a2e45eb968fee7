"""JSON bodies and forms of the hub's clients. Unknown fields, which future clients will send, are ignored."""

import json
from typing import TypeVar
from urllib.parse import parse_qs

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from ...errors import InvalidRequest
from ...values.json_text import read_json
from ..requests.bodies import JsonBody

MOST_FIELDS = 1_000
"""Most fields of a form: as many paths as a client asks about at once."""

M = TypeVar("M", bound=BaseModel)


def read(body: JsonBody, model: type[M]) -> M:
    """Parse a body. Call this once. Raises RequestValidationError."""
    try:
        return model.model_validate(read_json(body.whole()), strict=True)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise RequestValidationError([{"type": "json_invalid", "loc": (), "msg": "It is not JSON"}]) from None
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(mistakes) from None


def form(body: JsonBody) -> dict[str, list[str]]:
    """Parse a body of the type ``application/x-www-form-urlencoded``. Call this once. Raises InvalidRequest."""
    try:
        return parse_qs(body.whole().decode(), errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        detail = f"the body must be a form (name=value&name=value) of at most {MOST_FIELDS:,} fields"
        raise InvalidRequest(detail, code="invalid-value") from None
