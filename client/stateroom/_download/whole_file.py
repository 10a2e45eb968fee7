"""Downloads as one body: fetched into a Sink, resumed and checked."""

from __future__ import annotations

import re
import zipfile
from typing import IO, Protocol

import httpx

from .._digest import Hasher
from .._errors import DigestMismatch, ServerError, ServerUnavailable
from .._http.session import Http, Params
from .._printable import one_line, printable
from .._progress import Progress


class Sink(Protocol):
    """A destination for a body, written in order."""

    def write(self, data: bytes) -> object: ...

    def restart(self) -> None:
        """Discard everything written: the body comes again from its first byte."""


class FileSink:
    """A file, written from its beginning; with ``verify`` also the digest of the written bytes."""

    def __init__(self, file: IO[bytes], *, verify: bool) -> None:
        self.file = file
        self._verify = verify
        self.restart()

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.hasher = Hasher() if self._verify else None

    def write(self, data: bytes) -> None:
        self.file.write(data)
        if self.hasher is not None:
            self.hasher.update(data)

    def check(self, digest: str, size: int) -> None:
        """Raise DigestMismatch if the written bytes have another size or digest."""
        if self.hasher is not None and (self.hasher.size, self.hasher.digest()) != (size, digest):
            raise DigestMismatch(
                f"the download is damaged: {self.hasher.size} bytes with digest {self.hasher.digest()}, "
                f"expected {size} with {printable(digest)}"
            )


def fetch(http: Http, path: str, params: Params, sink: Sink, *, label: str, progress: Progress | None) -> httpx.Headers:
    """GET the body into the sink; return the answer's headers.

    A broken transfer is resumed where it stopped, if the body is still the same. Raises ServerUnavailable after too
    many breaks without progress.
    """
    retry = http.retry_policy()
    received, furthest, total, etag = 0, 0, None, None
    while True:
        headers: dict[str, str] = {"Range": f"bytes={received}-", "If-Range": etag} if received and etag else {}
        response = http.open(path, params, headers, retry)
        try:
            if response.status_code == 206 and not _continues(response, received):
                part = response.headers.get("Content-Range", "a range without Content-Range")
                raise ServerError(
                    f"{printable(label)} was requested from byte {received} on, but the server sent {printable(part)}"
                )
            if received and response.status_code != 206:
                sink.restart()
                received = 0
            etag = _strong(response.headers.get("ETag"))
            if not received:
                total = _length(response)
            for data in response.iter_raw():
                sink.write(data)
                received += len(data)
                if received > furthest:
                    furthest = received
                    retry.succeeded()
                if progress is not None:
                    progress(label, received, total)
            if total is None or received == total:
                return response.headers
            retry.failed(ServerUnavailable(f"only {received} of {total} bytes arrived"))
        except httpx.TransportError as failure:
            if received == total:
                return response.headers
            http.lost(failure, retry)
        finally:
            response.close()


def check_records(file: IO[bytes]) -> None:
    """Raise DigestMismatch if a record of this zip doesn't match its CRC-32, or the zip is broken."""
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except Exception as error:  # noqa: BLE001  zipfile meets damage with whatever error it stumbles into
        raise DigestMismatch(f"the download is damaged: {one_line(error) or type(error).__name__}") from None
    finally:
        file.seek(0)
    if damaged is not None:
        raise DigestMismatch(f"the download is damaged: {printable(damaged)} does not match its CRC-32")


def check_if_zip(file: IO[bytes]) -> None:
    """Check the records of a file that has no digest as a whole, if it is a zip at all."""
    if zipfile.is_zipfile(file):
        check_records(file)


def _continues(response: httpx.Response, received: int) -> bool:
    """Return whether this 206 answer is the requested rest of the body after ``received`` bytes, if any came."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return received > 0 and match is not None and int(match[1]) == received


def _strong(etag: str | None) -> str | None:
    return etag if etag is not None and etag.startswith('"') else None


def _length(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None else int(length)
