"""The files of a shard, assembled from the chunks of the xorbs that were sent before it."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence

from ...errors import Gone, InvalidRequest, PackMissing
from ...formats.xet.shard import ShardFile, Term
from ...formats.xet.xorb import END, unpack_ends
from ...store import PackStore
from ...values.hub import KeptXorb
from ...values.span import Span

_WINDOW = 4 * 1024 * 1024
"""Bytes of a xorb that are read at a time."""

_KNOWN = 32
"""Xorbs whose chunks' positions are kept in memory: 300 KB each."""


class Assembly:
    """Reader of files by their terms. ``xorbs`` are those of the session, by hash."""

    def __init__(self, store: PackStore, xorbs: Mapping[str, KeptXorb]) -> None:
        self._store = store
        self._xorbs = xorbs
        self._ends: OrderedDict[str, Sequence[int]] = OrderedDict()

    async def read(self, file: ShardFile) -> AsyncIterator[bytes]:
        """Yield the bytes of a file. Raises InvalidRequest for a term of another size than it says, and Gone."""
        for term in file.terms():
            span = await self._span(term)
            for start in range(span.start, span.end, _WINDOW):
                yield await self._bytes(term.xorb, Span(start, min(start + _WINDOW, span.end)))

    async def _span(self, term: Term) -> Span:
        ends = self._ends.get(term.xorb)
        if ends is None:
            xorb = self._xorbs[term.xorb]
            ends = unpack_ends(await self._bytes(term.xorb, Span(xorb.size, xorb.size + END * xorb.chunks)))
            self._ends[term.xorb] = ends
            if len(self._ends) > _KNOWN:
                self._ends.popitem(last=False)
        span = Span(ends[term.first - 1] if term.first else 0, ends[term.end - 1])
        if span.length != term.size:
            detail = f"{_named(term)} have {span.length:,} bytes, not the {term.size:,} that the shard says"
            raise InvalidRequest(detail)
        return span

    async def _bytes(self, xorb: str, span: Span) -> bytes:
        try:
            return bytes(await asyncio.to_thread(self._store.read, self._xorbs[xorb].pack, span))
        except PackMissing:
            detail = f"the xorb {xorb} is no longer kept: upload the files again"
            raise Gone(detail, code="upload-gone") from None


def check_terms(files: Sequence[ShardFile], xorbs: Mapping[str, KeptXorb]) -> None:
    """Raise InvalidRequest unless each term is of chunks that one of ``xorbs`` has. Takes seconds for many terms."""
    for file in files:
        for term in file.terms():
            xorb = xorbs.get(term.xorb)
            if xorb is None:
                raise InvalidRequest(
                    f"the file {file.sha256} is made of the xorb {term.xorb}, which was not sent to this URL; send it "
                    "first: a shard may refer only to xorbs that were sent to the casUrl of its own write token"
                )
            if not term.first < term.end <= xorb.chunks:
                raise InvalidRequest(f"there are no {_named(term)}: it has {xorb.chunks:,} chunks")


def _named(term: Term) -> str:
    return f"chunks [{term.first}, {term.end}) of the xorb {term.xorb}"
