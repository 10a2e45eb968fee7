"""Static files: scripts, styles, and the chart library, if ``make`` has fetched it.

A process reads them once. The address of a file holds a hash of all files, so browsers may keep it forever.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from ..responses.conditional import is_known
from ..responses.json import FOREVER, REVALIDATE, all_of

FOLDER = Path(__file__).parent / "static"
CHARTS = "vendor/uPlot.iife.min.js"
"""The chart library. It is not in the repository: ``make`` takes it from npm, where there is npm."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

PUBLIC = frozenset({"/static/{version}/{path:path}"})

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class File:
    """A static file. ``packed`` is its content in gzip."""

    media_type: str
    content: bytes
    packed: bytes
    etag: str


def _read() -> dict[str, File]:
    files = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix in _TYPES:
            content = path.read_bytes()
            etag = hashlib.sha256(content).hexdigest()[:32]
            packed = gzip.compress(content, mtime=0)
            files[path.relative_to(FOLDER).as_posix()] = File(_TYPES[path.suffix], content, packed, etag)
    return files


FILES = _read()
VERSION = hashlib.sha256("".join(name + file.etag for name, file in FILES.items()).encode()).hexdigest()[:12]
HAS_CHARTS = CHARTS in FILES


@router.get("/static/{version}/{path:path}")
async def static(request: Request, version: str, path: str) -> Response:
    """Serve a file. During an upgrade, a page of another server's version gets the present file, not to be kept."""
    file = FILES.get(path)
    if file is None:
        raise HTTPException(404)
    headers = {
        "Cache-Control": f"public, {FOREVER}" if version == VERSION else REVALIDATE,
        "ETag": f'"{file.etag}"',
        "Vary": "Accept-Encoding",
    }
    if is_known(all_of(request.headers, "If-None-Match"), file.etag):
        return Response(status_code=304, headers=headers)
    if takes_gzip(request):
        return Response(file.packed, 200, {**headers, "Content-Encoding": "gzip"}, file.media_type)
    return Response(file.content, 200, headers, file.media_type)


def takes_gzip(request: Request) -> bool:
    """Return whether the client accepts gzip. Browsers that do say so plainly."""
    codings = ",".join(request.headers.getlist("accept-encoding")).split(",")
    return any(coding.strip().lower() == "gzip" for coding in codings)
