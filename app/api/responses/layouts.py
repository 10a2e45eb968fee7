"""The layout of a download, as JSON."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from ...deliver.download import Download
from ...deliver.file_layout import FileLayout, PlacedStorage
from ...deliver.service import Deliver
from ...values.checkpoint import Checkpoint
from ...values.digest import BLOCK_SIZE
from ...values.json_text import joined
from ...values.slices import slices
from .downloads import LEFT_OUT, client_verifies, form_headers, left_out
from .json import NO_STORE, fixed_url, identity_headers, json_answer

Derived = Annotated[
    bool, Query(description="false: no digests of cast storages and of parts of storages, which are slow to compute")
]


class Stretch(BaseModel):
    """Bytes `[start, end)` of the file."""

    start: int
    end: int
    digest: str | None = Field(description="null where `derived=false` leaves it out")
    blocks: list[str] = Field(description="the BLAKE3 digests of its blocks, in hex")


class StorageLayout(Stretch):
    """One storage."""

    plain: bool = Field(description="`torch.load` builds its tensors without looking at its bytes")
    at: list[tuple[int, int, int]] | None = Field(
        default=None,
        description="`[object, start, end)` for each part of its bytes that can be fetched from one of `objects`, in "
        "order; only if `objects` are there",
    )


class Layout(BaseModel):
    """The layout of a download's file: ranges that can be fetched in parallel and verified."""

    size: int
    etag: str
    url: str
    block_size: int = BLOCK_SIZE
    rest: str | None = Field(
        description="the digest of all bytes between the storages; null until a cast file has been sent once"
    )
    pickle: Stretch | None = Field(description="a torch file's `data.pkl`")
    byteorder: Literal["little", "big"] = Field(
        description="byte order of the storages, from a torch file's `byteorder` record"
    )
    objects: list[str] | None = Field(
        default=None,
        description="URLs of the store, valid for some minutes, that need no token; only for a client that verifies, "
        "from a server that presigns",
    )
    storages: list[StorageLayout]


def layout_json(found: FileLayout, url: str) -> bytes:
    """Write a Layout as JSON. Of 400,000 storages, at most ITEMS are objects at a time."""
    rest = Layout(
        size=found.size,
        etag=found.etag,
        url=url,
        rest=found.rest,
        pickle=None if found.pickle is None else Stretch(**_fields(found.pickle)),
        byteorder=cast('Literal["little", "big"]', found.byteorder),
        storages=[],
    )
    head, name, end = rest.model_dump_json().rpartition('"storages":')
    objects = {part.url: None for each in found.storages for part in each.at}
    numbers = {url: number for number, url in enumerate(objects)}
    if objects:
        head = head.replace('"objects":null', f'"objects":{json.dumps(list(objects))}')

    def view(each: PlacedStorage) -> dict[str, Any]:
        at = [(numbers[part.url], part.span.start, part.span.end) for part in each.at]
        return {**_fields(each), "plain": each.is_plain, **({"at": at} if at else {})}

    storages = (json.dumps([view(each) for each in some], separators=(",", ":")) for some in slices(found.storages))
    return f"{head}{name}{joined(storages)}{end.removeprefix('[]')}".encode()


def _fields(stored: PlacedStorage) -> dict[str, Any]:
    return {
        "start": stored.span.start,
        "end": stored.span.end,
        "digest": stored.digest,
        "blocks": stored.blocks,
    }


def planned_layout(
    request: Request,
    deliver: Deliver,
    checkpoint: Checkpoint,
    ref: str,
    planned: Callable[[Checkpoint], Download],
    derived: bool,
    route: str,
) -> Response:
    """Return the layout of the download that ``planned`` returns. Blocks."""
    download = planned(checkpoint)
    found = deliver.layout(download, derived=derived, client_verifies=client_verifies(request))
    return layout_answer(request, checkpoint, ref, found, route, form_headers(download))


def layout_answer(
    request: Request,
    checkpoint: Checkpoint,
    ref: str,
    found: FileLayout,
    route: str,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return a layout response with ``more`` headers. ``route``, such as ``/state_dict``, is where the same query gets
    the file.
    """
    view = layout_json(found, fixed_url(request, checkpoint, route))
    headers = {**identity_headers(request, checkpoint, ref), **more}
    if any(each.at for each in found.storages):
        headers["Cache-Control"] = NO_STORE
    if found.left_out:
        headers[LEFT_OUT] = left_out(found.left_out)
    return json_answer(request, view, headers)
