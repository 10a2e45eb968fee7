"""Tensors as a tree of their dotted keys, with the number and the size of all that is below each name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .._tensor_info import TensorInfo

DEEPEST = 64
"""Levels of the tree. The rest of a longer key is one name: a file may hold keys of ten thousand dots."""

INDENT = "  "


@dataclass
class Node:
    """A name in the tree, with the tensor of this very key if there is one, and what is below it."""

    name: str
    tensor: TensorInfo | None = None
    count: int = 0
    bytes: int = 0
    below: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A line of the tree. ``count`` tensors of ``bytes`` bytes are at and below ``name``."""

    depth: int
    name: str
    tensor: TensorInfo | None
    count: int
    bytes: int

    @property
    def label(self) -> str:
        return INDENT * self.depth + (self.name or '""')


def tree_of(tensors: Iterable[TensorInfo]) -> Iterator[Line]:
    """Yield the lines from top to bottom. Names follow each other as in the file; a name that has one name below it,
    and no tensor, shares its line.
    """
    root = Node("")
    for tensor in tensors:
        at = root
        for name in tensor.key.split(".", DEEPEST - 1):
            at = at.below.setdefault(name, Node(name))
            at.count += 1
            at.bytes += tensor.bytes
        at.tensor = tensor
    waiting = [(0, node) for node in reversed(root.below.values())]
    while waiting:
        depth, node = waiting.pop()
        name = node.name
        while node.tensor is None and len(node.below) == 1:
            (node,) = node.below.values()
            name = f"{name}.{node.name}"
        yield Line(depth, name, node.tensor, node.count, node.bytes)
        waiting += [(depth + 1, each) for each in reversed(node.below.values())]
