"""A lineage as a drawing: ancestors on the left, descendants on the right, each joined to the one it is nearest to."""

from dataclasses import dataclass
from itertools import islice

from ...values.checkpoint import Checkpoint, CheckpointName
from ...values.lineage import Relation, Relative, Relatives, State
from .text import shown

STEPS = 3
"""Steps to either side that are drawn. A run of a hundred epochs has a line of a hundred parents."""

ROWS = 4
"""Checkpoints of one step that are drawn."""

BOX = (135, 44)
GAPS = (30, 14)
LABEL = 13
"""Characters that fit into a box."""


@dataclass(frozen=True, slots=True)
class Node:
    """A box. ``x`` and ``y`` are of its upper left corner. The checkpoint itself has no relation."""

    x: int
    y: int
    checkpoint: CheckpointName
    label: str
    note: str
    state: State
    relation: Relation | None


@dataclass(frozen=True, slots=True)
class Edge:
    path: str
    relation: Relation


@dataclass(frozen=True, slots=True)
class Graph:
    """A drawing. ``more_ancestors`` and ``more_descendants`` are known and not drawn; ``+`` where there are others."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    more_ancestors: str
    more_descendants: str
    box: tuple[int, int] = BOX


def draw(checkpoint: Checkpoint, ancestors: Relatives, descendants: Relatives) -> Graph | None:
    """Draw the lineage of ``checkpoint``; None if there is nobody else in it."""
    if not ancestors.items and not descendants.items:
        return None
    start = CheckpointName(checkpoint.model, checkpoint.version)
    left, right = _columns(start, ancestors), _columns(start, descendants)
    rows = max(map(len, [*left, *right]))
    height = rows * BOX[1] + (rows - 1) * GAPS[1]
    middle = Node(_x(len(left)), (height - BOX[1]) // 2, start, f"@{start.version}", "this one", "live", None)
    placed = {start: middle}
    edges: list[Edge] = []
    for columns, direction in ((left, -1), (right, 1)):
        for step, column in enumerate(columns, 1):
            top = (height - len(column) * BOX[1] - (len(column) - 1) * GAPS[1]) // 2
            for row, relative in enumerate(column):
                y = top + row * (BOX[1] + GAPS[1])
                node = _node(checkpoint, relative, _x(len(left) + direction * step), y)
                placed[relative.checkpoint] = node
                edges.append(Edge(_curve(*sorted((placed[relative.via], node), key=lambda n: n.x)), relative.relation))
    return Graph(
        width=_x(len(left) + len(right)) + BOX[0],
        height=height,
        nodes=tuple(placed.values()),
        edges=tuple(edges),
        more_ancestors=_more(ancestors, left),
        more_descendants=_more(descendants, right),
    )


def _x(column: int) -> int:
    return column * (BOX[0] + GAPS[0])


def _columns(start: CheckpointName, relatives: Relatives) -> list[list[Relative]]:
    """Return those that are drawn, by their steps from ``start``: only such whose way to it is drawn, too."""
    columns: list[list[Relative]] = []
    drawn = {start}
    for step in range(1, STEPS + 1):
        column = list(islice((each for each in relatives.items if each.depth == step and each.via in drawn), ROWS))
        if not column:
            break
        columns.append(column)
        drawn |= {each.checkpoint for each in column}
    return columns


def _more(relatives: Relatives, columns: list[list[Relative]]) -> str:
    left = len(relatives.items) - sum(map(len, columns))
    return f"{left:,}{'+' if relatives.more else ''}" if left or relatives.more else ""


def _node(checkpoint: Checkpoint, relative: Relative, x: int, y: int) -> Node:
    name = relative.checkpoint
    same = name.model == checkpoint.model
    label = f"@{name.version}" if same else _short(f"{name.model.name}@{name.version}")
    facts: list[str] = [] if relative.state in {"live", "unknown"} else [relative.state]
    facts += [f"epoch {relative.epoch:,}"] if relative.epoch is not None else []
    facts += [shown(relative.run, LABEL)] if relative.run and not facts else []
    facts += ["not known"] if relative.state == "unknown" else []
    facts += [f"merged, {relative.weight:.3g}"] if relative.relation == "merged_from" and not facts else []
    facts += ["warm start"] if relative.relation == "warm_started_from" and not facts else []
    return Node(x, y, name, label, ", ".join(facts), relative.state, relative.relation)


def _short(label: str) -> str:
    """Return the end of a label, where its version is."""
    return label if len(label) <= LABEL else "…" + label[1 - LABEL :]


def _curve(left: Node, right: Node) -> str:
    width, height = BOX
    x, y, end, to = left.x + width, left.y + height // 2, right.x, right.y + height // 2
    middle = (x + end) // 2
    return f"M{x} {y}C{middle} {y} {middle} {to} {end} {to}"
