"""Answers in JSON: their ETag, how long they hold, and which checkpoint they are about."""

import hashlib
import re
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from pydantic import BaseModel

from ..values.checkpoint import Checkpoint
from .conditional import is_known
from .views import checkpoint_url
from .wire import path_segment, path_value

FOREVER = "max-age=31536000, immutable"
REVALIDATE = "no-cache"

_FIXED_REF = re.compile(r"v?[0-9]+", re.ASCII)


def is_fixed(ref: str) -> bool:
    """Whether a ref names one version forever; any other may move."""
    return _FIXED_REF.fullmatch(ref) is not None


def identity_headers(request: Request, checkpoint: Checkpoint, ref: str) -> dict[str, str]:
    """Which checkpoint ``ref`` came to; for a ref that moves, also the address at which this answer stays."""
    headers = {"Stateroom-Checkpoint": f"{checkpoint.model}@{checkpoint.version}"}
    if not is_fixed(ref):
        headers["Content-Location"] = fixed_url(request, checkpoint)
    return headers


def fixed_url(request: Request, checkpoint: Checkpoint, rest: str | None = None) -> str:
    """The address of this very request, but by the checkpoint's number; ``run`` has done its work then.

    ``rest``, such as ``/state_dict``, replaces what follows the ref; ``derived`` is for an index alone.
    """
    if rest is None:
        rest = "".join("/" + path_segment(path_value(segment)) for segment in request.scope["path"].split("/")[7:])
    query = urlencode(
        [pair for pair in request.query_params.multi_items() if pair[0] not in {"run", "derived"}], quote_via=quote
    )
    url = checkpoint_url(checkpoint.model, checkpoint.version) + rest
    return f"{url}?{query}" if query else url


def lifetime(ref: str) -> str:
    """Cache-Control of what never changes once a version is known: its bytes."""
    return FOREVER if is_fixed(ref) else REVALIDATE


def json_answer(
    request: Request, view: BaseModel | bytes, headers: dict[str, str] | None = None, *, status: int = 200
) -> Response:
    """``view``, as an object or as JSON, with its ETag; 304 where a GET names it. Unless told otherwise it has to be
    asked for again.
    """
    body = view if isinstance(view, bytes) else view.model_dump_json().encode()
    etag = hashlib.sha256(body).hexdigest()[:32]
    all_headers = {"Cache-Control": REVALIDATE, "ETag": f'"{etag}"', **(headers or {})}
    if request.method == "GET" and is_known(all_of(request, "If-None-Match"), etag):
        return Response(status_code=304, headers=all_headers)
    return Response(body, status, all_headers, media_type="application/json")


def all_of(request: Request, name: str) -> str | None:
    """A list header, however many lines it came in."""
    return ", ".join(request.headers.getlist(name)) or None
