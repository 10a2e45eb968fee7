"""OpenAPI descriptions of the problems that routes may answer with: each status's meaning, and one example."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MEANINGS: dict[int, tuple[str, str, str]] = {
    400: (
        "The request is malformed, or its body ended early",
        "incomplete-upload",
        "the body ended after 4096 of 10240 bytes",
    ),
    401: ("A token is needed", "unauthorized", "This server requires a token: send Authorization: Bearer TOKEN."),
    403: (
        "The token does not allow this",
        "forbidden",
        "This request needs a token of scope write; this one has read.",
    ),
    404: (
        "There is no such model or checkpoint",
        "checkpoint-not-found",
        "vision/resnet50 has no version 12; it has versions up to 3",
    ),
    408: ("The request arrived too slowly", "request-timeout", "No bytes of the body arrived for 30 s."),
    409: (
        "The request conflicts with what is stored",
        "unsafe-globals",
        "vision/resnet50@12 contains objects that torch.load(weights_only=True) refuses: numpy.dtype",
    ),
    410: (
        "The resource is no longer available",
        "plan-expired",
        "this plan has expired or never existed; request a new one from warmstart",
    ),
    412: (
        "If-Match or If-None-Match does not hold; the ETag header has the current ETag",
        "precondition-failed",
        "If-Match does not hold: the resource has another ETag now. Get it again before you retry.",
    ),
    413: (
        "The body is too large",
        "too-large",
        "the body is larger than 67,108,864 bytes, the most that this server accepts",
    ),
    416: (
        "The range is outside the file",
        "range-not-satisfiable",
        "The range 'bytes=900-' is outside the file, which has 800 bytes.",
    ),
    422: (
        "The request is invalid: `code` names the rule it breaks, and `detail` says what to do instead",
        "no-keys-matched",
        "none of the 267 keys matches include=conv9.*",
    ),
    500: ("The server failed, or stored bytes are damaged", "damaged-blob", "block 3 no longer matches its digest"),
    501: (
        "This server does not support the request",
        "cast-unavailable",
        "this server cannot cast tensors, because torch is not installed: leave out dtype",
    ),
    503: ("Try again later: Retry-After says when", "catalog-busy", "the catalog is busy; retry later"),
    507: ("The storage is full", "storage-full", "the disk has no room left for the upload"),
}

OF_ANY = (400, 401, 403, 412, 422, 500, 503)
OF_A_MODEL = (404,)
OF_A_BODY = (408, 413)
OF_A_DOWNLOAD = (404, 409, 410, 501)

KNOWN: dict[int | str, dict[str, Any]] = {304: {"description": "Not modified: If-None-Match has the current ETag"}}
"""OpenAPI of the 304 that a conditional GET may have."""


class ProblemView(BaseModel):
    """An RFC 9457 problem. `code` is stable; some problems have more members, such as `near`, `rule` and `where`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong, and what to do instead")
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
