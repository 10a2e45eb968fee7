"""Reading a xorb: up to 8,192 chunks of files, each packed by itself, and perhaps a footer, which is not needed.

A chunk has a header of 8 bytes (version 0, packed size, scheme, plain size) and its packed bytes. Scheme 0 is plain,
1 is an LZ4 frame, and 2 is an LZ4 frame of bytes that are grouped by their place in 4: all the first ones, then all
the second ones, ...
"""

import struct

from lz4.frame import LZ4FrameDecompressor

from ...errors import InvalidRequest

MAX_CHUNKS = 8 * 1024
MAX_PLAIN_CHUNK = 128 * 1024
MAX_PACKED_CHUNK = MAX_PLAIN_CHUNK + 4096
"""An LZ4 frame of bytes that cannot be compressed is a little longer than these."""

MAX_PLAIN = 64 * 1024 * 1024
"""Most bytes of all chunks of a xorb."""

MAX_BODY = MAX_PLAIN + 2 * 1024 * 1024
"""Most bytes of a xorb as it is sent, with its headers and its footer."""

READ = 1024 * 1024
"""Plain bytes after which ``read`` returns."""

END = 4
"""Bytes of the position after a chunk, as it is stored."""

_HEADER = 8


class XorbDecoder:
    """Decodes a xorb that arrives piece by piece. Its memory is a piece, a packed chunk and READ.

    Raises InvalidRequest (``malformed-request``) with the number of the chunk that is wrong.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._in_footer = False
        self._size = 0
        self.ends: list[int] = []
        """The position after each chunk, in the plain bytes of all."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the xorb. Then ``read`` until nothing comes any more."""
        if not self._in_footer:
            self._pending += data

    def read(self) -> bytes:
        """Return the plain bytes of the next chunks that have arrived, READ or a little more; none: feed more."""
        plain, size, at = [], 0, 0
        while size < READ and not self._in_footer:
            chunk, at = self._next(at)
            if chunk is None:
                break
            plain.append(chunk)
            size += len(chunk)
        del self._pending[:at]
        return b"".join(plain)

    def finish(self) -> None:
        """Check that the xorb is complete."""
        if self._pending and not self._in_footer:
            raise self._refused("it ends early")
        if not self.ends:
            raise InvalidRequest("the xorb has no chunks")

    def _next(self, at: int) -> tuple[bytes | None, int]:
        """Return the chunk at ``at`` of the pending bytes, None unless all of it is there, and the place after it."""
        header = bytes(self._pending[at : at + _HEADER])
        if header and header[0] != 0:
            self._in_footer = True
            return None, len(self._pending)
        if len(header) < _HEADER:
            return None, at
        packed_size = int.from_bytes(header[1:4], "little")
        scheme = header[4]
        size = int.from_bytes(header[5:8], "little")
        self._check(packed_size, size)
        start, end = at + _HEADER, at + _HEADER + packed_size
        if len(self._pending) < end:
            return None, at
        plain = self._unpacked(scheme, bytes(self._pending[start:end]), size)
        self._size += size
        self.ends.append(self._size)
        return plain, end

    def _check(self, packed_size: int, size: int) -> None:
        if len(self.ends) == MAX_CHUNKS:
            raise self._refused(f"a xorb has at most {MAX_CHUNKS:,} chunks")
        if not 0 < size <= MAX_PLAIN_CHUNK:
            raise self._refused(f"it says that it has {size:,} bytes; a chunk has 1 to {MAX_PLAIN_CHUNK:,}")
        if not 0 < packed_size <= MAX_PACKED_CHUNK:
            raise self._refused(f"it says that it is packed into {packed_size:,} bytes; at most {MAX_PACKED_CHUNK:,}")
        if self._size + size > MAX_PLAIN:
            raise self._refused(f"the chunks up to it have more than {MAX_PLAIN:,} bytes, the most of a xorb")

    def _unpacked(self, scheme: int, packed: bytes, size: int) -> bytes:
        match scheme:
            case 0:  # not packed
                plain = packed
            case 1:  # LZ4
                plain = self._decompressed(packed, size)
            case 2:  # grouped, then LZ4
                plain = _ungrouped(self._decompressed(packed, size))
            case _:
                raise self._refused(f"there is no compression scheme {scheme}; use 0, 1 or 2")
        if len(plain) != size:
            raise self._refused(f"it has {len(plain):,} bytes, not the {size:,} that it says")
        return plain

    def _decompressed(self, packed: bytes, size: int) -> bytes:
        """Decompress one LZ4 frame of ``size`` bytes. No more than one byte beyond is ever made."""
        decompressor = LZ4FrameDecompressor()
        try:
            plain = bytes(decompressor.decompress(packed, max_length=size + 1))
        except (RuntimeError, ValueError, EOFError, MemoryError):
            raise self._refused("it is not an LZ4 frame, or a damaged one") from None
        if len(plain) > size:
            raise self._refused(f"it has more than the {size:,} bytes that it says")
        if not decompressor.eof or decompressor.unused_data:
            raise self._refused("its LZ4 frame does not end where the chunk ends")
        return plain

    def _refused(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"chunk {len(self.ends)} of the xorb: {why}")


def _ungrouped(grouped: bytes) -> bytes:
    """Put the bytes back in order that were grouped by their place in 4."""
    plain, start = bytearray(len(grouped)), 0
    for place in range(4):
        count = len(range(place, len(grouped), 4))
        plain[place::4] = grouped[start : start + count]
        start += count
    return bytes(plain)


def pack_ends(ends: list[int]) -> bytes:
    """Write the positions after the chunks, as they are stored behind a xorb's plain bytes."""
    return struct.pack(f"<{len(ends)}I", *ends)


def unpack_ends(data: bytes) -> tuple[int, ...]:
    """Read the positions that ``pack_ends`` wrote."""
    return struct.unpack(f"<{len(data) // END}I", data)
