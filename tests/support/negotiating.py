"""A negotiated upload over plain HTTP, as described in docs/http-api.md."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from blake3 import blake3

BLOCK = 16 * 1024 * 1024


@dataclass
class InParts:
    """A torch zip, split for an upload in parts: ``blocks`` are the frame's, then each storage's."""

    data: bytes
    storages: list[tuple[int, int]] = field(init=False)
    blocks: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.storages = sorted(_storages(self.data))
        frame, position = b"", 0
        for start, end in self.storages:
            frame, position = frame + self.data[position:start], end
        frame += self.data[position:]
        self.blocks = [*_cut(frame), *(block for start, end in self.storages for block in _cut(self.data[start:end]))]

    def announcement(self, **fields: Any) -> dict[str, Any]:
        blocks = [blake3(block).hexdigest() for block in self.blocks]
        return {"size": len(self.data), "storages": self.storages, "blocks": blocks, **fields}

    def announce(self, http: httpx.Client, model: str, **fields: Any) -> dict[str, Any]:
        answer = http.post(f"/v1/uploads/{model}", json=self.announcement(**fields))
        assert answer.status_code == 201, answer.text
        return answer.json()

    def send(self, http: httpx.Client, upload: dict[str, Any], numbers: Iterable[int] | None = None) -> None:
        """Send the missing blocks, or the blocks ``numbers``, one by one."""
        for number in missing(upload) if numbers is None else numbers:
            answer = http.put(f"{upload['url']}/blocks/{number}-{number + 1}", content=self.blocks[number])
            assert answer.status_code == 204, answer.text

    def upload(self, http: httpx.Client, model: str, **params: Any) -> dict[str, Any]:
        """Upload the whole file and return the checkpoint's JSON."""
        upload = self.announce(http, model)
        self.send(http, upload)
        answer = http.post(f"{upload['url']}/commit", params=params)
        assert answer.status_code == 201, answer.text
        return answer.json()


def missing(upload: dict[str, Any]) -> list[int]:
    """Return the numbers of the blocks that a server asks for."""
    return [number for first, end in upload["missing"] for number in range(first, end)]


def _cut(data: bytes) -> list[bytes]:
    return [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]


def _storages(data: bytes) -> Iterator[tuple[int, int]]:
    for record in zipfile.ZipFile(io.BytesIO(data)).infolist():
        if "/data/" in record.filename and record.file_size > 4096:
            name, extra = (
                int.from_bytes(data[record.header_offset + at : record.header_offset + at + 2], "little")
                for at in (26, 28)
            )
            start = record.header_offset + 30 + name + extra
            yield start, start + record.file_size
