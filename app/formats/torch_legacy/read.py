"""Reader of torch's format before 1.6, from a file's bytes to a Document.

Five pickles lie back to back: a magic number, the format's version, facts about the machine, the object, the keys of
its storages. Then come, for each key in that order, a count of elements in 8 bytes and the elements, both
little-endian: torch writes and reads them so on every machine, whatever the facts about the machine say.
A pickle's length is not stored, so a pickle is read in growing pieces until it ends in one.

Reference: ``_legacy_load`` in torch/serialization.py, ``THPStorage_writeFileRaw`` in torch/csrc/serialization.cpp.
"""

from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import TypeVar

from ...errors import HostileCheckpoint, NotACheckpoint, RefusedCheckpoint
from ...values.source import ByteSource
from ...values.span import Span
from ...values.work import Work
from ..document import Document
from ..pickle.limits import LIMITS, Limits
from ..pickle.machine import Hooks, parse, parse_first
from ..pickle.nesting import parts
from ..pickle.nodes import Dict, Node, StorageRef, StorageView
from .hooks import LegacyHooks, PlainHooks

FORMAT = "torch_legacy"

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
_MAGIC_AS_BYTES = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
"""The pickled magic number, at the start of every such file."""
_MAGIC_AS_TEXT = b"L119547037146038801333356L"

FIRST_PIECE = 64 * 1024
GROWTH = 4
"""Factor between the lengths of two pieces: in all, a pickle is read and parsed at most 1.34 times."""

HEAD_LIMITS = Limits(nbytes=FIRST_PIECE, opcodes=1_000, memo_slots=1_000, stack=1_000, nesting=10)
HEAD_STEPS = 100_000
"""Steps for the three pickles before the object, in which torch writes 250 bytes."""

_COUNT = Struct("<q")
_CUT_OFF = frozenset({"truncated", "length"})


def is_legacy(data: ByteSource) -> bool:
    """Tell whether a file starts with the magic number in any pickle protocol."""
    start = bytes(data[:32])
    return _MAGIC_AS_BYTES in start or start.startswith(_MAGIC_AS_TEXT)


def read(data: ByteSource, work: Work) -> Document:
    """Read a checkpoint. Raises NotACheckpoint, HostileCheckpoint or ShardedTensor."""
    start = _read_head(data)
    root, hooks, end = _parse_at(data, start, lambda: LegacyHooks(work), "object", LIMITS, work)
    if hooks.views:
        _check_views(root, hooks)
    keys, _, storages_at = _parse_at(data, end, PlainHooks, "storage keys", LIMITS, work)
    _check_keys(keys, hooks)
    return Document(
        root=root,
        format=FORMAT,
        skeleton=Span(start, end),
        byteorder="little",
        records=dict(_places(data, storages_at, [hooks.storages[key] for key in keys])),
        checksums=dict.fromkeys(keys, 0),
        storages=hooks.storages,
        unsafe_globals=tuple(hooks.unsafe_globals),
    )


def tree_of(skeleton: bytes, work: Work) -> Node:
    """Parse the object's pickle, by itself, to nodes."""
    return parse(skeleton, LegacyHooks(work), record="object", work=work)


AnyHooks = TypeVar("AnyHooks", bound=Hooks)


def _parse_at(
    data: ByteSource,
    start: int,
    make_hooks: Callable[[], AnyHooks],
    record: str,
    limits: Limits,
    work: Work,
) -> tuple[Node, AnyHooks, int]:
    """Parse the pickle at ``start``; return its root, its hooks and its end."""
    size = FIRST_PIECE
    while True:
        piece = data[start : min(start + min(size, limits.nbytes), len(data))]
        hooks = make_hooks()
        try:
            root, length = parse_first(piece, hooks, record=record, limits=limits, work=work)
        except RefusedCheckpoint as error:
            if error.rule not in _CUT_OFF or start + len(piece) == len(data):
                raise
            if len(piece) == limits.nbytes:
                detail = f"the pickle does not end within the limit of {limits.nbytes} bytes"
                raise HostileCheckpoint(detail, rule="pickle-size", where=record) from None
        else:
            return root, hooks, start + length
        size *= GROWTH


def _read_head(data: ByteSource) -> int:
    """Check the three pickles before the object; return the object's start."""
    work = Work(HEAD_STEPS, per_byte=0)
    magic, _, end = _parse_at(data, 0, PlainHooks, "magic number", HEAD_LIMITS, work)
    if type(magic) is not int or magic != MAGIC:
        raise NotACheckpoint("the file does not start with torch's magic number", rule="magic", where="byte 0")
    version, _, end = _parse_at(data, end, PlainHooks, "version", HEAD_LIMITS, work)
    if type(version) is not int or version != VERSION:
        raise NotACheckpoint(f"the file's format version is not {VERSION}", rule="version", where="version")
    facts, _, end = _parse_at(data, end, PlainHooks, "sys_info", HEAD_LIMITS, work)
    if type(facts) is not Dict:
        raise _refused("sys-info", "its sys_info is not a dict", "sys_info")
    return end


def _check_views(root: Node, hooks: LegacyHooks) -> None:
    """Check that each part of a storage is used only by tensors, and has a key of its own."""
    for key in hooks.views.keys() & hooks.storages.keys():
        raise _refused("storage-view", f"a storage and a part of one have the key {key[:200]!r}", "object")
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if type(node) is StorageView:
            detail = (
                f"the checkpoint contains a part of storage {node.storage.key[:200]!r} outside a tensor, which no "
                "later torch can save: load it with torch.load, and save a copy of that storage"
            )
            raise NotACheckpoint(detail, rule="storage-view", where="object")
        if id(node) not in seen:
            seen.add(id(node))
            stack += parts(node)


def _check_keys(keys: Node, hooks: LegacyHooks) -> None:
    """Check that the object names the same keys: torch leaves an unlisted storage uninitialised."""
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise _refused("storage-keys", "the storage keys are not a list of strings", "storage keys")
    listed = set(keys)
    if len(listed) != len(keys):
        raise _refused("storage-keys", "a storage key is listed twice", "storage keys")
    for key in hooks.storages:
        if key not in listed:
            raise _refused("storage-missing", f"storage {key[:200]!r} is not among the storage keys", "storage keys")
    for key in keys:
        if key not in hooks.storages:
            raise _refused("storage-keys", f"storage key {key[:200]!r} is not used by the object", "storage keys")


def _places(data: ByteSource, start: int, storages: Iterable[StorageRef]) -> Iterator[tuple[str, Span]]:
    """Yield each storage's key and span. The last span must end where the file does."""
    for storage in storages:
        where = f"storage {storage.key[:200]}"
        count = bytes(data[start : start + _COUNT.size])
        start += _COUNT.size
        end = start + storage.nbytes
        if end > len(data):
            raise NotACheckpoint("the file is truncated: it ends within its storages", rule="truncated", where=where)
        if _COUNT.unpack(count)[0] != storage.numel:
            detail = (
                f"a storage has {storage.numel} elements by the object, but {_COUNT.unpack(count)[0]} by its header"
            )
            raise _refused("storage-size", detail, where)
        yield storage.key, Span(start, end)
        start = end
    if start != len(data):
        raise _refused("trailing-bytes", f"{len(data) - start} bytes follow the last storage", f"byte {start}")


def _refused(rule: str, detail: str, where: str) -> HostileCheckpoint:
    return HostileCheckpoint(f"the file is damaged or forged: {detail}", rule=rule, where=where)
