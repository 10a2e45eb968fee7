"""What is committed of an upload: what the request says, and where it says nothing, what the file says."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from ..errors import InvalidRequest
from ..formats.facts import MAX_METRICS
from ..formats.index import Index
from ..values.checkpoint import Fields, ModelName, NewCheckpoint
from ..values.digest import Digest
from ..values.frame import blobs_of
from .digest import Digested
from .pack_plan import FoundBlob


@dataclass(frozen=True, slots=True)
class Source:
    """The file that an upload was: None for digests that only bytes in order have, and whether it may be asked for."""

    digest: Digest | None
    sha256: str | None
    original: bool = True


def describe(
    model: ModelName, fields: Fields, index: Index, digested: Digested, manifest: FoundBlob, source: Source
) -> NewCheckpoint:
    """Raises InvalidRequest ``bad-split`` where the manifest has one digest for blobs of two lengths."""
    facts = index.facts
    blobs = {manifest.digest: manifest.length}
    for digest, length in blobs_of(digested.manifest):
        if blobs.setdefault(digest, length) != length:
            raise InvalidRequest(
                f"{digest} is the digest of {blobs[digest]:,} bytes, and was given to {length:,}", code="bad-split"
            )
    return NewCheckpoint(
        model=model,
        run=fields.run,
        epoch=facts.epoch if fields.epoch is None else fields.epoch,
        step=facts.step if fields.step is None else fields.step,
        loss=facts.loss if fields.loss is None else fields.loss,
        metrics=_metrics(facts.metrics, fields.metrics),
        tags=fields.tags,
        format=index.manifest.format,
        devices=facts.devices,
        components=index.manifest.components,
        unsafe_globals=index.manifest.unsafe_globals,
        manifest=manifest.digest,
        frame=digested.frame.digest,
        blobs=blobs,
        nbytes=index.manifest.size,
        new_bytes=0,
        digest=source.digest,
        sha256=source.sha256,
        original=source.original,
        idempotency_key=fields.idempotency_key,
    )


def _metrics(of_file: Mapping[str, float], given: Mapping[str, float]) -> dict[str, float]:
    """What is given, and as many of the file's own as a checkpoint may have beside it."""
    room = max(0, MAX_METRICS - len(given))
    own = islice(((name, number) for name, number in of_file.items() if name not in given), room)
    return {**dict(own), **given}
