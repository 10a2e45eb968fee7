"""The nested state_dict that was saved, from its flat keys."""

from collections.abc import Mapping
from itertools import pairwise

from ...values.manifest import Path
from ...values.work import Work
from ..pickle.nodes import Dict, Node
from .metadata import refused

MAX_GAPS = 10_000
"""Most places of lists that no value fills."""


class Nested:
    """A state_dict that grows by one value after another, as ``set_element`` of torch lets it grow."""

    def __init__(self, where: str, work: Work) -> None:
        self.root = Dict()
        self._where = where
        self._work = work
        self._gaps = MAX_GAPS
        self._places: dict[int, dict[str | int, int]] = {id(self.root): {}}
        """The index in ``pairs`` of each key, for each Dict that was made here, by its id."""
        self._lists: set[int] = set()

    def put(self, path: Path, value: Node) -> None:
        """Put a value at its place. Raises BadFolder for a place that is taken, or that cannot be."""
        self._work.spend(4 * len(path))
        at: Node = self.root
        for key, below in pairwise(path):
            at = self._inside(at, path, key, Dict() if type(below) is str else [])
        if self._get(at, path, path[-1]) is not None:
            raise self._refuse(path, "is the place of two values")
        self._set(at, path, path[-1], value)

    def _inside(self, at: Node, path: Path, key: str | int, new: Node) -> Node:
        known = self._get(at, path, key)
        if known is not None:
            return known
        self._set(at, path, key, new)
        if isinstance(new, Dict):
            self._places[id(new)] = {}
        else:
            self._lists.add(id(new))
        return new

    def _get(self, at: Node, path: Path, key: str | int) -> Node:
        """Return the node at a key of a container that was made here; None if there is none."""
        if isinstance(at, Dict) and (places := self._places.get(id(at))) is not None:
            return at.pairs[places[key]][1] if key in places else None
        if isinstance(at, list) and id(at) in self._lists and type(key) is int:
            return at[key] if key < len(at) else None
        raise self._refuse(path, "goes through a value, or names an item of a list by a text")

    def _set(self, at: Node, path: Path, key: str | int, value: Node) -> None:
        if isinstance(at, Dict):
            places = self._places[id(at)]
            if key in places:
                at.pairs[places[key]] = key, value
            else:
                places[key] = len(at.pairs)
                at.pairs.append((key, value))
        elif isinstance(at, list) and type(key) is int:
            self._gaps -= max(0, key - len(at))
            if self._gaps < 0:
                raise self._refuse(path, "leaves too much of a list without values")
            at += [None] * (key + 1 - len(at))
            at[key] = value

    def _refuse(self, path: Path, why: str) -> Exception:
        return refused(self._where, f"the path {[*map(str, path)]!s:.300} {why}", "dcp-path")


def nested(values: Mapping[str, Node], paths: Mapping[str, Path], where: str, work: Work) -> Dict:
    """Return the state_dict of values by their flat keys; a key without a path is at its top level."""
    tree = Nested(where, work)
    for key, value in values.items():
        tree.put(paths.get(key, (key,)), value)
    return tree.root
