"""JSON responses: ETag, Cache-Control, preconditions, and headers that name the checkpoint."""

import hashlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.datastructures import Headers

from ...access.grants import OPEN
from ...errors import PreconditionFailed
from ...values.checkpoint import Checkpoint
from ...values.json_text import joined
from ...values.slices import ITEMS, slices
from ..requests.paths import path_segment, path_value
from .conditional import is_known, is_unchanged
from .views import checkpoint_url

FOREVER = "max-age=31536000, immutable"
REVALIDATE = "no-cache"
NO_STORE = "no-store"

_FIXED_REF = re.compile(r"v?[0-9]+", re.ASCII)


def is_fixed(ref: str) -> bool:
    """Return whether a ref names one version forever; any other may move."""
    return _FIXED_REF.fullmatch(ref) is not None


def identity_headers(request: Request, checkpoint: Checkpoint, ref: str) -> dict[str, str]:
    """Return headers that name the checkpoint of ``ref``; for a moving ref, also the fixed URL of this response."""
    headers = {"Stateroom-Checkpoint": f"{checkpoint.model}@{checkpoint.version}"}
    if not is_fixed(ref):
        headers["Content-Location"] = fixed_url(request, checkpoint)
    return headers


def fixed_url(request: Request, checkpoint: Checkpoint, rest: str | None = None) -> str:
    """Return the URL of this request with the checkpoint's number as its ref, which makes ``run`` needless.

    ``rest``, such as ``/state_dict``, replaces the path after the ref. ``wait``, and ``derived``, which only an index
    takes, are left out.
    """
    if rest is None:
        rest = "".join("/" + path_segment(path_value(segment)) for segment in request.scope["path"].split("/")[7:])
    query = urlencode(
        [pair for pair in request.query_params.multi_items() if pair[0] not in {"run", "derived", "wait"}],
        quote_via=quote,
    )
    url = checkpoint_url(checkpoint.model, checkpoint.version) + rest
    return f"{url}?{query}" if query else url


def lifetime(ref: str) -> str:
    """Return the Cache-Control of a version's bytes, which never change."""
    return FOREVER if is_fixed(ref) else REVALIDATE


def shown_to(request: Request) -> str:
    """Return the start of Cache-Control: ``private`` if a token was needed. A link has no Authorization, so a shared
    cache would go on answering after the link or the token has ended.
    """
    return "" if getattr(request.state, "grant", OPEN) == OPEN else "private, "


def etag_of(view: BaseModel) -> str:
    return _etag(view_json(view))


def view_json(view: BaseModel) -> bytes:
    """``view.model_dump_json()``. Its long lists are written a slice at a time, so that other threads run meanwhile."""
    if not any(_is_long(value) for _, value in view):
        return view.model_dump_json().encode()
    return b"{" + b",".join(_member(view, name, value) for name, value in view) + b"}"


def _is_long(value: object) -> bool:
    return isinstance(value, list) and len(value) > ITEMS


def _member(view: BaseModel, name: str, value: Any) -> bytes:
    if not _is_long(value):
        return view.model_dump_json(include={name})[1:-1].encode()
    before = f'"{name}":'
    views = (view.model_copy(update={name: some}) for some in slices(value))
    lists = (some.model_dump_json(include={name})[1 + len(before) : -1] for some in views)
    return (before + joined(lists)).encode()


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def json_answer(
    request: Request,
    view: BaseModel | bytes,
    headers: dict[str, str] | None = None,
    *,
    status: int = 200,
    etag: str | None = None,
) -> Response:
    """Return ``view``, an object or JSON, with its ETag (by default, a digest of the JSON); 304 if a GET's
    If-None-Match names it. By default a cache has to revalidate it.

    Raises PreconditionFailed if a GET's If-Match does not name it.
    """
    body = view if isinstance(view, bytes) else view_json(view)
    etag = etag or _etag(body)
    all_headers = {"Cache-Control": REVALIDATE, "ETag": f'"{etag}"', **(headers or {})}
    if all_headers["Cache-Control"] != NO_STORE:
        all_headers["Cache-Control"] = shown_to(request) + all_headers["Cache-Control"]
    if request.method == "GET":
        check_if_match(request.headers, etag)
        if is_known(all_of(request.headers, "If-None-Match"), etag):
            return Response(status_code=304, headers=all_headers)
    return Response(body, status, all_headers, media_type="application/json")


def check_if_match(headers: Headers, etag: str | None) -> None:
    """Raise PreconditionFailed if If-Match does not hold for the current ETag (None: no resource)."""
    if not is_unchanged(all_of(headers, "If-Match"), etag):
        now = "the resource does not exist" if etag is None else "the resource has another ETag now"
        raise PreconditionFailed(f"If-Match does not hold: {now}. Get it again before you retry.", etag=etag)


def check_write(request: Request, current: Callable[[], str | None]) -> None:
    """Raise PreconditionFailed unless the If-Match and If-None-Match of a write hold.

    ``current`` returns the ETag that a GET of the same URL has now, None if there is none; it is called only for a
    conditional request. Call check_write where no other write can come between it and this write.
    """
    if "If-Match" not in request.headers and "If-None-Match" not in request.headers:
        return
    etag = current()
    check_if_match(request.headers, etag)
    if etag is not None and is_known(all_of(request.headers, "If-None-Match"), etag):
        raise PreconditionFailed("If-None-Match does not hold: the resource already exists.", etag=etag)


def nothing() -> None:
    """Return None, the ETag of a URL that only does something, for ``check_write``."""


def all_of(headers: Headers, name: str) -> str | None:
    """Return a list header as one value, from all its lines."""
    lines = headers.getlist(name)
    return ", ".join(lines) if lines else None
