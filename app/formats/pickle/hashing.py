"""What Python would hash: keys of mappings, items of sets. No unpickler builds a mapping with a list for a key.

Nothing is hashed here; what is looked at is which kinds of nodes Python refuses to hash.
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
"""Which of its arguments each takes its first pairs from."""

HASHING = _MAPPINGS | _SETS
"""Names of what hashes what it is called with, or is given later."""


class Hashing:
    """Looks at all that one pickle has hashed: a step for each key, and for each part of one."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def check(self, items: Sequence[Node], of: str) -> None:
        """Raise Broken unless Python hashes each of ``items``, which are keys or items ``of`` something."""
        self._work.spend(len(items))
        for item in items:
            if type(item) not in _PLAIN:
                self._look(item, of)

    def check_keys(self, target: Node, keys: Sequence[Node]) -> None:
        """Raise Broken unless ``keys`` can be set in ``target``, if that is one of Python's own mappings."""
        if type(target) is Dict or _name(target) in _MAPPINGS:
            self.check(keys, "a key of a mapping")

    def check_call(self, function: Global, args: Node) -> None:
        """Raise Broken for arguments that ``function``, one of HASHING, could not hash."""
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
        """Into tuples as well, which are hashed by what is in them."""
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
                    f"{of} is a {kind}{inside}, which Python cannot hash, so nothing can load it; text, numbers and "
                    "tuples of such would be right",
                )


def is_hashable(node: Node, work: Work) -> bool:
    """Whether Python hashes a node, as far as anyone can tell who does not build it."""
    try:
        Hashing(work).check((node,), "")
    except Broken:
        return False
    return True


def _unhashable(node: Node) -> str | None:
    """What Python calls a node of a kind that it cannot hash; None for any other."""
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
