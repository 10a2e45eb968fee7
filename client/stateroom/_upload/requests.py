"""Uploads to one model: in one piece, or in parts."""

from __future__ import annotations

from typing import IO

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._errors import NotFound, ServerError
from .._http.session import json_of
from .._query import optional
from .._types import Params
from .body import Body
from .negotiated import NegotiatedUpload
from .split import Split


def upload(api: ModelApi, file: IO[bytes], params: Params, *, label: str, key: str) -> Checkpoint:
    """Upload in one piece. With the same ``key`` it is safe to send again, whatever became of the first try: it is
    stored once.

    Raises DigestMismatch if the server stored other bytes than were sent.
    """
    body = Body(file, label=label, progress=api.transfers.bar(), verify=api.transfers.verify)
    length = optional(**{"Content-Length": None if body.size is None else str(body.size)})
    headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": key, **dict(length)}
    response = api.http.send(
        "POST",
        f"{api.path}/checkpoints",
        params,
        headers=headers,
        content=body,
        replayable=body.size is not None,
        safe=True,
        size=body.size or 0,
    )
    checkpoint = api.read(json_of(response))
    if checkpoint.digest is not None:
        body.check(checkpoint.digest)
    return checkpoint


def upload_split(
    api: ModelApi, split: Split, params: Params, *, original: bool, label: str, key: str
) -> Checkpoint | None:
    """Upload in parts, sending only those that the server doesn't have. ``original``: keep the file byte for byte.

    Returns None if the file has to be uploaded in one piece, under the same key.
    """
    found = _negotiated(api, split, label).run(params, original=original, key=key)
    return None if found is None else api.read(found)


def stage_split(api: ModelApi, split: Split, *, label: str) -> None:
    """Send blobs, of which ``split`` consists, for a checkpoint that another upload commits. Only what the server lacks
    is sent.
    """
    try:
        is_done = _negotiated(api, split, label).stage()
    except NotFound as error:
        if error.code != "no-such-route":
            raise
        reason = f"the server at {api.http.url} takes no checkpoint from several processes: upgrade it"
        raise ServerError(reason) from None
    if not is_done:
        raise ServerError(f"the server at {api.http.url} lost again and again what was sent to it")


def _negotiated(api: ModelApi, split: Split, label: str) -> NegotiatedUpload:
    return NegotiatedUpload(
        api.http,
        api.path.replace("/v1/models/", "/v1/uploads/", 1),
        split,
        connections=api.transfers.connections,
        label=label,
        progress=api.transfers.bar(),
    )
