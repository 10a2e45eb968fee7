"""The committed description of an upload: the request's fields, with defaults from the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from ..errors import InvalidRequest
from ..formats.facts import MAX_METRICS
from ..formats.index import Index
from ..values.checkpoint import Fields, ModelName, NewCheckpoint
from ..values.digest import Digest
from ..values.frame import blobs_of
from ..values.thinned import optimizer_blobs
from .digest import Digested
from .pack_plan import FoundBlob


@dataclass(frozen=True, slots=True)
class Source:
    """The uploaded file: its digests (None: not computed), and whether it may be downloaded."""

    digest: Digest | None
    sha256: str | None
    original: bool = True


def describe(
    model: ModelName, fields: Fields, index: Index, digested: Digested, manifest: FoundBlob, source: Source
) -> NewCheckpoint:
    """Make the NewCheckpoint. Raises InvalidRequest ``bad-split`` if the manifest has a digest with two lengths."""
    facts = index.facts
    blobs = {manifest.digest: manifest.length}
    for digest, length in blobs_of(digested.manifest):
        if blobs.setdefault(digest, length) != length:
            raise InvalidRequest(
                f"the digest {digest} is given for {blobs[digest]:,} bytes and for {length:,} bytes", code="bad-split"
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
        parent=fields.parent,
        warm_started_from=fields.warm_started_from,
        ttl=fields.ttl,
        slot=fields.slot,
        scan=fields.scan,
        hub=fields.hub,
        merge=fields.merge,
        optimizer_bytes=sum(optimizer_blobs(digested.manifest).values()),
    )


def _metrics(of_file: Mapping[str, float], given: Mapping[str, float]) -> dict[str, float]:
    """The given metrics, and as many metrics of the file as the limit still allows."""
    room = max(0, MAX_METRICS - len(given))
    own = islice(((name, number) for name, number in of_file.items() if name not in given), room)
    return {**dict(own), **given}
