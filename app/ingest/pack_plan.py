"""The plan for storing an upload's new bytes: keep the upload whole as a pack, or copy only the new bytes to one.

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
    """A blob found in an upload: the bytes of ``spans``, one after another. Other fields are as in ``Blob``."""

    digest: Digest
    spans: tuple[Span, ...]
    crc32: int
    blocks: bytes

    @property
    def length(self) -> int:
        return sum(span.length for span in self.spans)


@dataclass(frozen=True, slots=True)
class PackPlan:
    """The plan for a pack of ``size`` bytes named ``name``.

    With ``adopt`` the pack is the upload followed by copies of its ``spans``, otherwise only copies of ``spans``.
    ``blobs`` are the new blobs, with their places in the pack.
    """

    name: str
    adopt: bool
    spans: tuple[Span, ...]
    size: int
    blobs: tuple[Blob, ...]


def plan_pack(name: str, size: int, found: Sequence[FoundBlob], known: Container[Digest]) -> PackPlan | None:
    """Plan how to store an upload of ``size`` bytes with the blobs ``found``, of which some are ``known``.

    Keeping the upload whole costs a rename, copying costs its bytes. So the upload is kept whole if at most
    max(1 MiB, 5%) of it is wasted: bytes known before, duplicate bytes, a frame that has to be gathered. None if
    nothing is new.
    """
    whole = plan_adoption(name, size, found, known)
    if not whole.blobs:
        return None
    wasted = whole.size - sum(blob.length for blob in whole.blobs)
    return whole if wasted <= max(TOLERATED_BYTES, size * TOLERATED_SHARE) else plan_copy(name, found, known)


def plan_adoption(name: str, size: int, found: Sequence[FoundBlob], known: Container[Digest]) -> PackPlan:
    """Plan to keep the upload whole. ``known`` decides only which blobs are new, not the bytes of the pack."""
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
    """Plan a pack of only the new blobs, in the order of the upload."""
    blobs: list[Blob] = []
    spans: list[Span] = []
    end = 0
    for blob in sorted(_new(found, known), key=lambda blob: blob.spans):
        blobs.append(_placed(blob, name, end))
        spans += blob.spans
        end += blob.length
    return PackPlan(name, False, tuple(spans), end, tuple(blobs)) if blobs else None


def _new(found: Sequence[FoundBlob], known: Container[Digest]) -> list[FoundBlob]:
    """The blobs of ``found`` that are not known, each digest once."""
    return list({blob.digest: blob for blob in found if blob.digest not in known}.values())


def _placed(blob: FoundBlob, pack: str, offset: int) -> Blob:
    return Blob(blob.digest, pack, offset, blob.length, blob.crc32, blob.blocks)
