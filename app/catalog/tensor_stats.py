"""Statistics of tensors: computed once, kept for every checkpoint with the same elements. The caller chooses the key
and the text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select

from ..values.digest import Digest
from .blobs import present
from .lists import each_text, is_among
from .session import ReadSession, WriteSession
from .tables import tensor_stats


@dataclass(frozen=True, slots=True)
class KeptStats:
    """Statistics as text. ``digest`` is a blob that contains the elements; the statistics are deleted with that
    blob.
    """

    key: str
    digest: Digest
    text: str


def get(s: ReadSession, namespace: str, keys: Iterable[str]) -> dict[str, str]:
    """The kept statistics of ``keys``, in one statement."""
    c = tensor_stats.c
    rows = s.select(select(c.key, c.text).where(c.namespace == namespace, is_among(c.key, each_text(keys))))
    return {row.key: row.text for row in rows}


def put(w: WriteSession, namespace: str, new: Sequence[KeptStats]) -> None:
    """Keep the statistics ``new`` whose blobs still exist. Existing rows stay: equal elements have equal statistics."""
    there = present(w, namespace, {one.digest for one in new})
    rows = [
        {"namespace": namespace, "key": one.key, "digest": one.digest, "text": one.text}
        for one in new
        if one.digest in there
    ]
    w.insert_or_keep(tensor_stats, rows)


def drop(w: WriteSession, namespace: str, digests: Iterable[Digest]) -> None:
    """Delete the statistics of the blobs ``digests``."""
    c = tensor_stats.c
    w.execute(delete(tensor_stats).where(c.namespace == namespace, is_among(c.digest, each_text(digests))))
