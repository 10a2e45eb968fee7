"""An optimizer's ``param_groups`` as JSON, for people to look at: learning rates, betas, parameter ids."""

import json
import math
from typing import Any

from .pickle.nodes import Call, Global, Node
from .torch_tensors import is_tensor
from .tree import name_of, numpy_scalar, pairs_of, path_element

MAX_DEPTH = 8
"""Real param_groups nest two deep."""


def param_groups_json(optimizer: Node) -> str:
    """JSON text; what JSON has no word for is named in angle brackets, a non-finite number is null."""
    groups: Node = next((value for key, value in pairs_of(optimizer) or () if key == "param_groups"), [])
    return json.dumps(_plain(groups, MAX_DEPTH), separators=(",", ":"))


def _plain(node: Node, depth: int) -> Any:
    scalar = numpy_scalar(node)
    if scalar is not None:
        node = scalar
    if node is None or isinstance(node, (bool, int, str)):
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else None
    if is_tensor(node):
        return "<tensor>"
    if depth and isinstance(node, (list, tuple)):
        return [_plain(item, depth - 1) for item in node]
    if depth and (pairs := pairs_of(node)) is not None:
        return {str(path_element(key)): _plain(value, depth - 1) for key, value in pairs}
    if isinstance(node, Global):
        return f"<{node.full_name}>"
    return f"<{name_of(node) or 'value'}>" if isinstance(node, Call) else f"<{type(node).__name__.lower()}>"
