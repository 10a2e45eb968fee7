"""Entries of the writer's work list: nodes, and the opcodes that take them. The last entry is written first."""

from collections.abc import Iterator, Sequence

from . import opcodes as op
from .nodes import Node, TensorRef

BATCH = 1000
"""Items of a list or dict on the unpickler's stack at one time."""


class Op:
    """An opcode waiting on the work list behind the nodes that it takes."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = bytes([code])


class Built:
    """Waits behind the parts of ``node``. ``code`` builds ``node`` from its parts; if a cycle built ``node`` meanwhile,
    ``drop`` takes the parts off the stack again. ``node`` None is never memoized.
    """

    __slots__ = ("code", "drop", "node")

    def __init__(self, node: Node, code: bytes, drop: bytes) -> None:
        self.node = node
        self.code = code
        self.drop = drop


class Arguments:
    """A tensor's argument tuple without the call, for ``_rebuild_from_type_v2``."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: TensorRef) -> None:
        self.tensor = tensor


MARK, APPEND, APPENDS = Op(op.MARK), Op(op.APPEND), Op(op.APPENDS)
SETITEM, SETITEMS, BUILD = Op(op.SETITEM), Op(op.SETITEMS), Op(op.BUILD)


def appends(items: Sequence[Node]) -> Iterator[Node]:
    """Yield entries that append ``items`` to the list on top of the stack."""
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        if len(batch) == 1:
            yield from (batch[0], APPEND)
        else:
            yield from (MARK, *batch, APPENDS)


def setitems(pairs: Sequence[tuple[Node, Node]]) -> Iterator[Node]:
    """Yield entries that set ``pairs`` in the mapping on top of the stack."""
    for start in range(0, len(pairs), BATCH):
        batch = [part for pair in pairs[start : start + BATCH] for part in pair]
        if len(batch) == 2:
            yield from (*batch, SETITEM)
        else:
            yield from (MARK, *batch, SETITEMS)
