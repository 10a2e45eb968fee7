"""JSON bodies of the hub's clients. Future clients will send fields that we do not know, so these are ignored."""

import json
from typing import TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from ...values.json_text import read_json
from ..requests.bodies import JsonBody

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
