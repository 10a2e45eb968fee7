"""Check of nesting depth. Cycles are legal; deep nesting without a cycle is refused."""

from collections.abc import Sequence

from ...errors import HostileCheckpoint
from ...values.work import Work
from .nodes import Call, Dict, Global, Node, Persistent, Set, TensorRef


def check_nesting(root: Node, limit: int, record: str, work: Work) -> None:
    """Raise HostileCheckpoint if ``root`` holds containers more than ``limit`` deep. Never recurses itself."""
    heights: dict[int, int] = {}  # 0 while a node's inside is measured: a way back to that node is a cycle
    stack: list[tuple[Node, list[Node] | None]] = [(root, None)]
    depth = 0
    while stack:
        node, inside = stack.pop()
        if inside is None:
            if id(node) in heights:
                continue
            directly = parts(node)
            work.spend(2 + len(directly))
            inside = [part for part in directly if _may_hold_containers(part)]
            heights[id(node)] = 0
            depth += 1
            stack.append((node, inside))
            stack += [(part, None) for part in inside if id(part) not in heights]
        else:
            heights[id(node)] = 1 + max([heights[id(part)] for part in inside], default=0)
            depth -= 1
        if max(depth, heights[id(node)]) > limit:
            raise HostileCheckpoint(f"values are nested more than {limit} levels deep", rule="nesting", where=record)


def parts(node: Node) -> Sequence[Node]:
    """Return all nodes directly inside a node, in any role; a storage does not count."""
    kind = type(node)
    if kind is tuple or kind is list:
        return node  # type: ignore[no-any-return]  # a node is Any; its type was just checked
    if kind is Dict:
        return [part for pair in node.pairs for part in pair]
    if kind is TensorRef:
        return node.rest  # type: ignore[no-any-return]  # as above
    if kind is Call:
        pairs = [part for pair in node.pairs for part in pair]
        return [node.function, node.args, node.kwargs, *node.items, *pairs, *node.states]
    if kind is Set:
        return node.items  # type: ignore[no-any-return]  # as above
    return (node.pid,) if kind is Persistent else ()


_CONTAINERS = frozenset({tuple, list, Dict, Call, Set, Persistent})


def _may_hold_containers(node: Node) -> bool:
    """Tell whether containers may be inside: not in plain values, nor in ordinary dense tensors, the bulk of files."""
    kind = type(node)
    if kind is not TensorRef:
        return kind in _CONTAINERS
    for part in node.rest:
        if type(part) is Call:
            if type(part.function) is not Global or part.args or part.pairs or part.states or part.items:
                return True
        elif type(part) in _CONTAINERS:
            return True
    return False
