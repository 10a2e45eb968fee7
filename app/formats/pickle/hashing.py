"""Check that Python could hash keys of mappings and items of sets. No unpickler takes a list as a key.

Nothing is hashed here: only the kinds of nodes are checked.
"""

from collections.abc import Sequence

from ...values.work import Work
from .broken import Broken
from .nodes import Call, Dict, Global, Node, Set

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
_MAPPINGS = frozenset({"collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.dict"})
_SETS = frozenset({"builtins.set", "builtins.frozenset"})
_UNHASHABLE = _MAPPINGS | {"builtins.set", "builtins.list", "builtins.bytearray", "collections.deque"}
_PAIRS = {"collections.OrderedDict": 0, "builtins.dict": 0, "collections.defaultdict": 1}
"""Index of the argument with the initial pairs, by function."""

HASHING = _MAPPINGS | _SETS
"""Names of functions whose arguments, or later items, are hashed."""


class Hashing:
    """Check of all hashed nodes of one pickle. Each key, and each part of a key, costs a step."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def check(self, items: Sequence[Node], of: str) -> None:
        """Raise Broken unless Python can hash each of ``items``. ``of`` names their role in the message."""
        self._work.spend(len(items))
        for item in items:
            if type(item) not in _PLAIN:
                self._look(item, of)

    def check_keys(self, target: Node, keys: Sequence[Node]) -> None:
        """Raise Broken unless ``keys`` can be set in ``target``, if that is a mapping of Python's own."""
        if type(target) is Dict or _name(target) in _MAPPINGS:
            self.check(keys, "a key of a mapping")

    def check_call(self, function: Global, args: Node) -> None:
        """Raise Broken if ``function``, one of HASHING, could not hash its arguments."""
        name = function.full_name
        place = _PAIRS.get(name, 0)
        items = args[place] if type(args) is tuple and len(args) > place else ()
        if type(items) is not list and type(items) is not tuple:
            return
        if name in _PAIRS:
            self.check([pair[0] for pair in items if type(pair) in {list, tuple} and pair], "a key of a mapping")
        else:
            self.check(items, "a key of a Counter" if name not in _SETS else "an item of a set")

    def _look(self, item: Node, of: str) -> None:
        """Check an item, and the items of tuples, which Python hashes too."""
        waiting = [item]
        while waiting:
            node = waiting.pop()
            if type(node) is tuple:
                self._work.spend(len(node))
                waiting += node
            elif (kind := _unhashable(node)) is not None:
                inside = "" if node is item else " in a tuple"
                raise Broken(
                    "unhashable",
                    f"{of} is a {kind}{inside}, which Python cannot hash, so nothing can load it; use text, numbers or "
                    "tuples of them",
                )


def is_hashable(node: Node, work: Work) -> bool:
    """Tell whether Python can hash a node, as far as is known without building the object."""
    try:
        Hashing(work).check((node,), "")
    except Broken:
        return False
    return True


def _unhashable(node: Node) -> str | None:
    """Return Python's name for an unhashable kind of node; None for other nodes."""
    kind = type(node)
    if kind is list or kind is bytearray:
        return kind.__name__
    if kind is Dict:
        return "dict"
    if kind is Set:
        return None if node.frozen else "set"
    name = _name(node)
    return name.rpartition(".")[2] if name in _UNHASHABLE else None


def _name(node: Node) -> str:
    return node.function.full_name if type(node) is Call and type(node.function) is Global else ""
