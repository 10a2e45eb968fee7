"""Detection of tar archives as in torch.load, which tries tar before its own format from before 1.6.

Torch's first container was a tar archive. A file in both formats gives its readers different tensors.

Reference: ``_legacy_load`` in torch/serialization.py; ``TarInfo.frombuf`` in Lib/tarfile.py, which checks only the
checksum of the first 512 bytes.
"""

from ...values.source import ByteSource

_HEAD = 512
_CHECKSUM = slice(148, 156)
_BLANK = b" " * 8


def is_tar(data: ByteSource) -> bool:
    """Tell whether the file starts with a tar header."""
    head = bytearray(data[:_HEAD])
    if len(head) < _HEAD:
        return False
    told = _number(bytes(head[_CHECKSUM]))
    head[_CHECKSUM] = _BLANK
    return told in {sum(head), sum(byte - 256 if byte > 127 else byte for byte in head)}


def _number(field: bytes) -> int | None:
    """Read an octal or base-256 number; return None for other text."""
    if field[0] in {0x80, 0xFF}:
        return int.from_bytes(field[1:], "big") - (256**7 if field[0] == 0xFF else 0)
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return None
