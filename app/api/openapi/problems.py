"""OpenAPI descriptions of the problems that routes may answer with: each status's meaning, and one example."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MEANINGS: dict[int, tuple[str, str, str]] = {
    400: (
        "The request is malformed, or its body ended early",
        "incomplete-upload",
        "the body ended after 4096 of 10240 bytes",
    ),
    401: ("A token is needed", "unauthorized", "This server asks for a token: Authorization: Bearer TOKEN."),
    403: ("The token may not do this", "forbidden", "This needs a token with the scope write."),
    404: (
        "There is no such model or checkpoint",
        "checkpoint-not-found",
        "vision/resnet50 has no version 12; it has versions up to 3",
    ),
    408: ("The request came too slowly", "request-timeout", "No byte of the body came for 30 s."),
    409: (
        "The request contradicts what is stored",
        "unsafe-globals",
        "vision/resnet50@12 holds objects that torch.load(weights_only=True) refuses: numpy.dtype",
    ),
    410: ("It was kept for a limited time", "plan-expired", "this plan is not kept any more; ask warmstart again"),
    412: (
        "If-Match or If-None-Match does not hold; ETag is that of what there is now",
        "precondition-failed",
        "If-Match names another ETag than this has now; look at it again, and decide again.",
    ),
    413: ("The body is too large", "too-large", "A JSON body is at most 67,108,864 bytes."),
    416: (
        "The range is outside the file",
        "range-not-satisfiable",
        "'bytes=900-' lies outside the 800 bytes",
    ),
    422: (
        "The request can be read, but not granted: `code` says which rule it breaks, `detail` what would be right",
        "no-keys-matched",
        "no key of model_state_dict matches include='conv9.*'; close: conv1.weight, conv1.bias",
    ),
    500: ("The server failed, or stored bytes are damaged", "damaged-blob", "block 3 no longer matches its digest"),
    501: ("This server cannot do that", "cast-unavailable", "this server cannot cast tensors: leave out dtype"),
    503: ("Try again later: Retry-After says when", "catalog-busy", "the catalog is busy; try again later"),
    507: ("No room is left", "storage-full", "no room left for the upload"),
}

OF_ANY = (400, 401, 403, 412, 422, 500, 503)
OF_A_MODEL = (404,)
OF_A_BODY = (408, 413)
OF_A_DOWNLOAD = (404, 409, 410, 501)

KNOWN: dict[int | str, dict[str, Any]] = {304: {"description": "The client has it: If-None-Match names its ETag"}}
"""OpenAPI of the 304 that a conditional GET may have."""


class ProblemView(BaseModel):
    """An RFC 9457 problem. `code` is stable; some problems have more members, such as `near`, `rule` and `where`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong, and what would be right")
    code: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for the problems of these statuses, for ``responses=`` of a route or a router."""
    return {status: _documented(status) for status in statuses}


def add_problem_schema(document: dict[str, Any]) -> None:
    """Add the schema that all problems refer to. FastAPI would list it as plain JSON beside problem+json."""
    document["components"]["schemas"][ProblemView.__name__] = ProblemView.model_json_schema()


def _documented(status: int) -> dict[str, Any]:
    meaning, code, detail = MEANINGS[status]
    example = {
        "type": f"urn:stateroom:problem:{code}",
        "title": meaning,
        "status": status,
        "detail": detail,
        "code": code,
    }
    schema = {"$ref": f"#/components/schemas/{ProblemView.__name__}"}
    return {
        "description": meaning,
        "content": {"application/problem+json": {"schema": schema, "example": example}},
    }
