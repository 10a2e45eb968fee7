"""An optimizer's ``param_groups`` as JSON, for people to read: learning rates, betas, parameter ids."""

import json
import math
from typing import Any

from ..values.work import Work
from .pickle.nodes import Call, Global, Node
from .torch_tensors import is_tensor
from .tree import MAX_INT_BITS, name_of, numpy_scalar, pairs_of, path_element

MAX_DEPTH = 8
"""Real param_groups nest two deep."""

MAX_VALUES = 500_000
"""Values shown; 400,000 tensors have as many ids. A text counts as one value for every CHARACTERS."""

CHARACTERS = 16
MAX_TEXT = 1_000
"""Characters shown of one text or name; a longer text is cut."""


def param_groups_json(optimizer: Node, work: Work) -> str:
    """Return JSON text; values that JSON cannot express are named in angle brackets, a non-finite number is null."""
    groups: Node = next((value for key, value in pairs_of(optimizer) or () if key == "param_groups"), [])
    return json.dumps(_Shown(work).show(groups, MAX_DEPTH), separators=(",", ":"))


class _Shown:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.values = 0

    def show(self, node: Node, depth: int) -> Any:
        self._count(1)
        if self.values > MAX_VALUES:
            return "<and more>"
        scalar = numpy_scalar(node)
        if scalar is not None:
            node = scalar
        if isinstance(node, float):
            return node if math.isfinite(node) else None
        if isinstance(node, str):
            return self._text(node)
        if node is None or isinstance(node, bool) or (isinstance(node, int) and node.bit_length() <= MAX_INT_BITS):
            return node
        if depth and isinstance(node, (list, tuple)):
            return [self.show(item, depth - 1) for item in node[: max(0, MAX_VALUES - self.values)]]
        if depth and (pairs := pairs_of(node)) is not None:
            self._count(len(pairs))
            shown = pairs[: max(0, MAX_VALUES - self.values)]
            return {self._text(str(path_element(key))): self.show(value, depth - 1) for key, value in shown}
        return f"<{_kind(node)}>"

    def _text(self, text: str) -> str:
        shown = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."
        self._count(len(shown) // CHARACTERS)
        return shown

    def _count(self, values: int) -> None:
        self.values += values
        self.work.spend(4 * values)


def _kind(node: Node) -> str:
    if is_tensor(node):
        return "tensor"
    if isinstance(node, Global):
        return node.full_name
    return (name_of(node) or "value") if isinstance(node, Call) else type(node).__name__.lower()
