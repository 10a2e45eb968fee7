"""Files that are valid in two formats, and the format in which each reader reads them."""

import struct

from tests.formats.legacy_files import SYS_INFO, counted, legacy
from tests.hostile.corpus.base import FLOATS, HONEST, NOTHING, Files, pickle, refused, storage, tensor
from tests.hostile.corpus.safetensors_files import header

OBJECT = pickle(tensor(storage(end=b"N")), NOTHING)


def tar_head(start: bytes, magic: bytes) -> bytes:
    """``start`` made the first 512 bytes of a tar, which is a name, a mode, a size and their checksum."""
    head = bytearray(start.ljust(512, b"\0"))
    head[124:136] = b"00000000000\0"
    head[156:157] = b"0"
    head[257:265] = magic
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def tar_and_legacy(magic: bytes) -> bytes:
    """torch.load of a file tries a tar first; the same bytes are an honest file of before 1.6."""
    facts = {"pad": "X" * 600, **SYS_INFO}
    whole = legacy(OBJECT, ("0",), [counted(FLOATS)], sys_info=facts)
    at = whole.index(b"X" * 600)
    head = tar_head(whole[:at], magic)
    return head + whole[len(head) :]


def files() -> Files:
    for magic in (b"ustar\x0000", b"ustar  \0", bytes(8)):
        yield refused(f"a tar and a legacy file, {magic!r}", tar_and_legacy(magic), "tar")
    for what, whole in HONEST.items():
        yield refused(
            f"{what} in a safetensors header",
            struct.pack("<Q", len(whole) + 1) + b"{" + whole,
            "header-json",
            "truncated",
            "trailing-bytes",
            "magic",
            "value",
        )
        yield refused(
            f"{what} in a safetensors tensor", struct.pack("<Q", len(header())) + header() + whole, "trailing-bytes"
        )
        for other, behind in HONEST.items():
            yield refused(
                f"{what} and {other}", whole + behind, "zip-directory", "zip-overlap", "zip-end", "trailing-bytes"
            )
        yield refused(
            f"{what} and safetensors",
            whole + struct.pack("<Q", len(header())) + header() + FLOATS,
            "zip-end",
            "trailing-bytes",
        )
    signed = struct.pack("<Q", 0x04034B50)
    yield refused("a safetensors header whose length is a zip's signature", signed + header(), "zip-end", "truncated")
    whole = HONEST["zip"]
    yield refused("zip: a safetensors header in its first name", whole[:30] + b"{}" + whole[32:], "zip-local")
    for start in (
        b"\x80\x02\x8a\x0alegacy",
        b"\x80\x02",
        b"L119547037146038801333356L",
        b"L119547037146038801333356L\n.",
    ):
        yield refused(
            f"a file that starts {start!r}", start, "magic", "truncated", "stack-underflow", "length", "protocol"
        )
