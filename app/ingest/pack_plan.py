"""Where the new bytes of an upload go: into the upload itself, kept whole, or into a pack of just those.

Pure: a plan is a value, and commit.py carries it out.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from ..values.checkpoint import Blob
from ..values.digest import Digest
from ..values.span import Span

TOLERATED_BYTES = 1024 * 1024
TOLERATED_SHARE = 1 / 20


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """A blob as it was found in an upload: ``spans`` of it, one after another. The rest is as in ``Blob``."""

    digest: Digest
    spans: tuple[Span, ...]
    crc32: int
    blocks: bytes

    @property
    def length(self) -> int:
        return sum(span.length for span in self.spans)


@dataclass(frozen=True, slots=True)
class PackPlan:
    """A pack of ``size`` bytes to be called ``name``.

    With ``adopt`` it is the upload with copies of ``spans`` of itself appended, else just copies of ``spans``.
    ``blobs`` are the new ones, in their places in the pack.
    """

    name: str
    adopt: bool
    spans: tuple[Span, ...]
    size: int
    blobs: tuple[Blob, ...]


def plan_pack(name: str, size: int, found: Sequence[FoundBlob], known: Container[Digest]) -> PackPlan | None:
    """How to store an upload of ``size`` bytes, in which ``found`` are all blobs, of those that are not ``known``.

    Keeping the upload whole costs a rename, copying costs its bytes; so the upload is kept if at most
    max(1 MiB, 5%) of it would be stored in vain: bytes known before, bytes there twice, a frame that has to be
    gathered. None when there is nothing new.
    """
    whole = plan_adoption(name, size, found, known)
    if not whole.blobs:
        return None
    wasted = whole.size - sum(blob.length for blob in whole.blobs)
    return whole if wasted <= max(TOLERATED_BYTES, size * TOLERATED_SHARE) else plan_copy(name, found, known)


def plan_adoption(name: str, size: int, found: Sequence[FoundBlob], known: Container[Digest]) -> PackPlan:
    """Keep the upload whole. What pack this makes does not depend on what is known: only which blobs are new does."""
    spans: list[Span] = []
    gathered: dict[Digest, int] = {}
    end = size
    for blob in found:
        if len(blob.spans) != 1 and blob.digest not in gathered:
            gathered[blob.digest] = end
            spans += blob.spans
            end += blob.length
    blobs = [
        _placed(blob, name, gathered[blob.digest] if blob.digest in gathered else blob.spans[0].start)
        for blob in _new(found, known)
    ]
    return PackPlan(name, True, tuple(spans), end, tuple(blobs))


def plan_copy(name: str, found: Sequence[FoundBlob], known: Container[Digest]) -> PackPlan | None:
    """A pack of just what is new, in the order of the upload."""
    blobs: list[Blob] = []
    spans: list[Span] = []
    end = 0
    for blob in sorted(_new(found, known), key=lambda blob: blob.spans):
        blobs.append(_placed(blob, name, end))
        spans += blob.spans
        end += blob.length
    return PackPlan(name, False, tuple(spans), end, tuple(blobs)) if blobs else None


def _new(found: Sequence[FoundBlob], known: Container[Digest]) -> list[FoundBlob]:
    """What of ``found`` is not known, each digest once."""
    return list({blob.digest: blob for blob in found if blob.digest not in known}.values())


def _placed(blob: FoundBlob, pack: str, offset: int) -> Blob:
    return Blob(blob.digest, pack, offset, blob.length, blob.crc32, blob.blocks)
