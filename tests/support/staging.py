"""Blobs that are sent ahead of the checkpoint that refers to them, over plain HTTP: see docs/http-api.md."""

from dataclasses import dataclass
from typing import Any

import httpx
from blake3 import blake3

from tests.support.negotiating import BLOCK, InParts, missing


@dataclass
class Blobs:
    """An upload that is nothing but ``blobs``, each of more than 4096 bytes."""

    blobs: list[bytes]

    @property
    def blocks(self) -> list[bytes]:
        cut = [blob[start : start + BLOCK] for blob in self.blobs for start in range(0, len(blob), BLOCK)]
        return [b"", *cut]

    def announcement(self) -> dict[str, Any]:
        storages, end = [], 0
        for blob in self.blobs:
            storages.append((end, end + len(blob)))
            end += len(blob)
        return {"size": end, "storages": storages, "blocks": [blake3(block).hexdigest() for block in self.blocks]}

    def announce(self, http: httpx.Client, model: str) -> dict[str, Any]:
        answer = http.post(f"/v1/uploads/{model}", json=self.announcement())
        assert answer.status_code == 201, answer.text
        return answer.json()

    def send(self, http: httpx.Client, upload: dict[str, Any]) -> None:
        for number in missing(upload):
            answer = http.put(f"{upload['url']}/blocks/{number}-{number + 1}", content=self.blocks[number])
            assert answer.status_code == 204, answer.text

    def stage(self, http: httpx.Client, model: str) -> None:
        upload = self.announce(http, model)
        self.send(http, upload)
        answer = http.post(f"{upload['url']}/stage")
        assert answer.status_code == 204, answer.text


def blobs_of(file: InParts) -> list[bytes]:
    return [file.data[start:end] for start, end in file.storages]
