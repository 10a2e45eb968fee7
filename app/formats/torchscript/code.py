"""Reader of a program's text: which attributes of its modules are parameters, and which are buffers.

The text is searched for three kinds of lines, and never compiled::

    class Linear(Module):
      __parameters__ = ["weight", "bias", ]
      __buffers__ = []
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import HostileCheckpoint
from ...values.source import ByteSource
from ...values.work import Work
from ..torch_zip.archive import Archive
from ..torch_zip.records import Record

MAX_CODE = 16 * 1024 * 1024
"""Bytes of a program's text, inflated; a large model's is a few million."""

_CODE, _PYTHON = "code/", ".py"
_NAMES = r'\[((?:"[^"\n]*", )*)\]\n'
_CLASS = re.compile(rf"^class (\w+)\(Module\):\n  __parameters__ = {_NAMES}(?:  __buffers__ = {_NAMES})?", re.MULTILINE)
_NAME = re.compile(r'"([^"\n]*)", ')


@dataclass(frozen=True, slots=True)
class ModuleClass:
    """A module's attributes. ``buffers`` is None before torch 1.5: every tensor but the parameters is a buffer."""

    parameters: frozenset[str]
    buffers: frozenset[str] | None


def code_size(archive: Archive) -> int:
    """Return the bytes of a program's text, inflated."""
    return sum(map(_size, _texts(archive).values()))


def module_classes(data: ByteSource, archive: Archive, work: Work) -> Mapping[str, ModuleClass]:
    """Return module classes by their full names. Raises HostileCheckpoint for damaged or too long text."""
    texts, size = _texts(archive), code_size(archive)
    if size > MAX_CODE:
        raise _refused("code-size", f"its code has {size} bytes; at most {MAX_CODE} are allowed", "code")
    work.spend(size // 32)
    classes: dict[str, ModuleClass] = {}
    for name, record in texts.items():
        module = name.removeprefix(_CODE).removesuffix(_PYTHON).replace("/", ".")
        for match in _CLASS.finditer(_text(data, record, name)):
            class_name, parameters, buffers = match.groups()
            full_name = f"{module}.{class_name}"
            work.spend((len(parameters) + len(buffers or "")) // 2)  # a name takes five characters or more
            if full_name in classes:
                raise _refused("torchscript-names", f"its code has the class {full_name[:200]!r} twice", name)
            classes[full_name] = ModuleClass(
                frozenset(_NAME.findall(parameters)), None if buffers is None else frozenset(_NAME.findall(buffers))
            )
    return classes


def _texts(archive: Archive) -> Mapping[str, Record]:
    return {
        name: record for name, record in archive.records.items() if name.startswith(_CODE) and name.endswith(_PYTHON)
    }


def _size(record: Record) -> int:
    """Return the bytes that a record takes in memory."""
    return max(record.end - record.start, record.inflated or 0)


def _text(data: ByteSource, record: Record, name: str) -> str:
    raw = bytes(data[record.start : record.end])
    if record.inflated is not None:
        raw = _inflate(raw, record.inflated, name)
    if record.crc32 not in {0, zlib.crc32(raw)}:
        raise _refused("zip-crc", "a record does not match its CRC32", name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("utf-8", "its code is not valid UTF-8", name) from None


def _inflate(raw: bytes, size: int, name: str) -> bytes:
    """Inflate to exactly ``size`` bytes. Raises HostileCheckpoint."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(raw, size + 1)
    except zlib.error:
        raise _refused("zip-deflated", "a deflated record is damaged", name) from None
    if len(inflated) != size or not inflater.eof or inflater.unused_data:
        raise _refused("zip-deflated", f"a deflated record does not have its declared size of {size} bytes", name)
    return inflated


def _refused(rule: str, detail: str, where: str) -> HostileCheckpoint:
    return HostileCheckpoint(f"the archive is damaged or forged: {detail}", rule=rule, where=where[:200])
