"""Responses that send downloads, by RFC 9110, of files that exist only as plans."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from ...concurrency.cancellation import current
from ...deliver.download import Download
from ...values.checkpoint import Checkpoint
from ...values.span import Span
from ..middleware.normalize import is_head
from ..openapi.problems import KNOWN, OF_A_DOWNLOAD, refusals
from ..problems import Problem
from ..requests.digests import sha256_field
from ..requests.paths import path_value
from ..services import Streams
from ..threads import disconnected
from .conditional import is_known, range_applies
from .json import all_of, check_if_match, identity_headers, lifetime, shown_to
from .ranges import UnsatisfiableRange, content_range, requested_span

SMALLEST_SLICE = 128 * 1024
LARGEST_SLICE = 1024 * 1024
SLICES = 4 * 1024 * 1024
"""Bytes that all downloads together hand to the kernel before other tasks have a turn, within the slice sizes above."""

LEFT_OUT = "Stateroom-Left-Out"
LEFT_OUT_BYTES = 2048
DTYPE, SHAPE = "Stateroom-Dtype", "Stateroom-Shape"

VERIFIES = "Stateroom-Verifies"
"""Request header; its value ``client`` says that the client verifies whole stored blocks by the index's digests."""

_NOT_IN_A_NAME = re.compile(r"[/\\\x00-\x1f\x7f]")

_FILE = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
SAFETENSORS = "application/x-safetensors"
RAW = "application/octet-stream"
_TENSOR = {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (SAFETENSORS, RAW)}}
_FORM = {
    "Stateroom-Dtype": {"description": "the tensor's dtype, by torch's name", "schema": {"type": "string"}},
    "Stateroom-Shape": {"description": "the tensor's sizes: `10, 512`", "schema": {"type": "string"}},
}
TENSOR_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The tensor", "headers": _FORM, **_TENSOR},
    206: {"description": "The requested range", "headers": _FORM, **_TENSOR},
    **KNOWN,
    **refusals(*OF_A_DOWNLOAD, 416),
}
"""OpenAPI for a route that answers with one tensor."""

FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", **_FILE},
    206: {"description": "The requested range", **_FILE},
    **KNOWN,
    **refusals(*OF_A_DOWNLOAD, 416),
}
"""OpenAPI for every route that answers with a DownloadResponse."""


def file_name(asked: str | None, default: str) -> str:
    """Return the path segment ``asked`` as a safe file name, or ``default`` without a usable name."""
    name = _NOT_IN_A_NAME.sub("_", path_value(asked or ""))
    return name if name.strip(" .") else default


def disposition(filename: str) -> str:
    """Return the value of Content-Disposition (RFC 6266), with ``filename*`` if ASCII is not enough."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in filename)
    value = f'attachment; filename="{plain}"'
    return value if plain == filename else f"{value}; filename*=UTF-8''{quote(filename, safe='')}"


def left_out(paths: tuple[str, ...]) -> str:
    """Return the value of Stateroom-Left-Out: percent-encoded paths, then ``...`` if they exceed LEFT_OUT_BYTES."""
    value = ""
    for path in paths:
        more = (", " if value else "") + quote(path, safe="/:@[]()+=!$&'*;", errors="replace")
        if len(value) + len(more) > LEFT_OUT_BYTES:
            return f"{value}, ..."
        value += more
    return value


def form_headers(download: Download) -> dict[str, str]:
    """Return headers that tell the dtype and the shape of the one tensor that a download has; none for other files."""
    form = download.plan.tensor
    return {} if form is None else {DTYPE: form.dtype, SHAPE: ", ".join(map(str, form.shape))}


def _media_type_of(download: Download) -> str:
    return RAW if download.plan.tensor is None or download.plan.format == "raw" else SAFETENSORS


class DownloadResponse(Response):
    """A response that sends ``download``, or the range of it that the request asks for.

    The first window is read before the head is sent, so that damage or a lost pack is still answered with a problem. A
    later failure is raised, which cuts the connection before Content-Length is reached.
    """

    def __init__(
        self,
        download: Download,
        headers: Mapping[str, str],
        streams: Streams,
        *,
        caller: str,
        filename: str | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(status_code=200)
        self._download = download
        self._streams = streams
        self._caller = caller
        self._fields = {
            **headers,
            **form_headers(download),
            "ETag": f'"{download.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": media_type or _media_type_of(download),
            "Content-Disposition": disposition(file_name(filename, download.filename)),
        }
        if download.left_out:
            self._fields[LEFT_OUT] = left_out(download.left_out)
        if download.plan.tensor is not None:
            self._fields["Vary"] = "Accept"
        if download.sha256 is not None:
            self._fields["Repr-Digest"] = sha256_field(download.sha256)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope)
        size = self._download.size
        check_if_match(asked, self._download.etag)
        if is_known(all_of(asked, "If-None-Match"), self._download.etag):
            kept = ("ETag", "Cache-Control", "Content-Location", "Stateroom-Checkpoint", "Vary")
            headers = {name: value for name, value in self._fields.items() if name in kept}
            await Response(status_code=304, headers=headers)(scope, receive, send)
            return
        span = None
        # Range is defined for GET alone.
        if not is_head(scope) and range_applies(asked.get("if-range"), self._download.etag):
            try:
                span = requested_span(asked.get("range"), size)
            except UnsatisfiableRange:
                await self._unsatisfiable(asked["range"]).response()(scope, receive, send)
                return
        if span is None:
            self.status_code, span = 200, Span(0, size)
        else:
            self.status_code = 206
            self._fields["Content-Range"] = content_range(span, size)
        self.init_headers({**self._fields, "Content-Length": str(span.length)})
        if is_head(scope):
            await self._start(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            memory = self._streams.memory.reserved(self._download.held, self._caller)
            async with memory:
                with self._streams.joined():
                    await self._stream(span, receive, send, client_verifies=_verifies(asked))

    def _unsatisfiable(self, asked: str) -> Problem:
        return Problem(
            416,
            "The range is outside the file",
            f"The range {asked[:100]!r} is outside the file, which has {self._download.size} bytes.",
            "range-not-satisfiable",
            headers={"Content-Range": content_range(None, self._download.size), "Accept-Ranges": "bytes"},
        )

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _stream(self, span: Span, receive: Receive, send: Send, *, client_verifies: bool) -> None:
        """Send ``span`` while the next window is read; stop when the client is gone."""
        gone = asyncio.create_task(disconnected(receive))
        windows = self._download.windows(span.start, span.end, client_verifies=client_verifies)
        ahead = asyncio.create_task(_next(windows))
        try:
            if not await _comes_first(ahead, gone):
                return
            window = await ahead
            await self._start(send)
            while window is not None:
                ahead = asyncio.create_task(_next(windows))
                for view in window:
                    await self._send_view(view, send)
                if not await _comes_first(ahead, gone):
                    return
                window = await ahead
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            current().give_up()  # stops a thread that may still work on an unwanted window
            for task in (gone, ahead):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):  # its error was raised, or no longer matters
                    await task

    async def _send_view(self, view: memoryview, send: Send) -> None:
        """Send ``view`` in slices: a long one would hold up every other request, a short one costs a call. Other tasks
        have a turn after each: a send to a client that reads as fast as we write never waits.
        """
        start = 0
        while start < len(view):
            end = start + min(LARGEST_SLICE, max(SMALLEST_SLICE, SLICES // self._streams.active))
            await send({"type": "http.response.body", "body": view[start:end], "more_body": True})
            await asyncio.sleep(0)
            start = end


def client_verifies(request: Request) -> bool:
    """Tell whether the client says that it verifies what it gets."""
    return _verifies(request.headers)


def _verifies(headers: Headers) -> bool:
    return headers.get(VERIFIES) == "client"


def download_answer(
    request: Request,
    streams: Streams,
    checkpoint: Checkpoint,
    ref: str,
    download: Download,
    filename: str | None,
    media_type: str | None = None,
) -> DownloadResponse:
    """Return the response for a ``download`` of the checkpoint that ``ref`` picked, as ``filename`` if given."""
    headers = {**identity_headers(request, checkpoint, ref), "Cache-Control": shown_to(request) + lifetime(ref)}
    caller = current().owner
    return DownloadResponse(download, headers, streams, caller=caller, filename=filename, media_type=media_type)


async def _next(windows: AsyncIterator[list[memoryview]]) -> list[memoryview] | None:
    return await anext(windows, None)


async def _comes_first(task: asyncio.Task[Any], other: asyncio.Task[Any]) -> bool:
    """Wait for either task, and return whether only ``task`` has ended."""
    await asyncio.wait((task, other), return_when=asyncio.FIRST_COMPLETED)
    return not other.done()
