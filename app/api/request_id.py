"""The id of a request, which the log, problems and ``X-Request-Id`` tell."""

from starlette.types import Scope

KEY = "stateroom.request_id"


def request_id(scope: Scope) -> str:
    """Return the request's id. The outermost middleware has given it."""
    found: str = scope[KEY]
    return found
