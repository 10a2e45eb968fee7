"""An upload in parts, step by step."""

import asyncio

from app.ingest.body import Chunks
from app.ingest.negotiated import Progress
from app.values.checkpoint import Checkpoint, Fields
from app.values.span import Span
from app.values.split import Split
from tests.ingest.workplace import MODEL, Workplace, chunked, torch_file, weights
from tests.support.negotiating import InParts


def announce(place: Workplace, file: InParts) -> Progress:
    announcement = file.announcement()
    spans = [Span(*each) for each in announcement["storages"]]
    split = Split(len(file.data), spans, bytes.fromhex("".join(announcement["blocks"])))
    return place.ingest.negotiated.begin(MODEL, split, original=True)


def send(place: Workplace, file: InParts, progress: Progress) -> None:
    for run in progress.missing:
        data = b"".join(file.blocks[run.start : run.stop])
        asyncio.run(place.ingest.negotiated.receive(progress.upload, run, Chunks(chunked(data))))


def commit(place: Workplace, progress: Progress, key: str | None = None) -> Checkpoint:
    return place.ingest.negotiated.commit(MODEL, progress.upload.id, Fields(idempotency_key=key))[0]


def file_of(*seeds: int) -> InParts:
    return InParts(torch_file({"epoch": 1, **{f"w{seed}": weights(seed, 0.5) for seed in seeds}}))
