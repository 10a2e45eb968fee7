"""The tree of a folder: of one checkpoint file its own, of several a dict of theirs, with shards merged."""

from collections.abc import Iterable, Mapping, Sequence

from ...errors import BadFolder
from ...values.work import Work
from ..pickle.nodes import Call, Dict, Global, Node
from ..tree import pairs_of


def joined(sources: Iterable[tuple[str, Node]]) -> Node:
    """Join the trees of checkpoint files, each with its name. Trees of one name are shards."""
    by_name: dict[str, list[Node]] = {}
    for name, root in sources:
        by_name.setdefault(name, []).append(root)
    roots = {name: roots[0] if len(roots) == 1 else _merged(roots) for name, roots in by_name.items()}
    if len(roots) == 1:
        return next(iter(roots.values()))
    return Dict(list(roots.items()))


def _merged(shards: Sequence[Node]) -> Node:
    """Merge state_dicts to one, an OrderedDict; their ``_metadata`` too, as torch saves it."""
    merged = Call(_ORDERED_DICT, ())
    merged.pairs = [pair for shard in shards for pair in pairs_of(shard) or ()]
    metadata = [pair for shard in shards for pair in _metadata_of(shard)]
    if metadata:
        inner = Call(_ORDERED_DICT, ())
        inner.pairs = metadata
        merged.states = [Dict([("_metadata", inner)])]
    return merged


def check_shards(paths: Sequence[str], roots: Sequence[Node], keys_of: Mapping[str, Sequence[str]], work: Work) -> None:
    """Check that shards are state_dicts without a common key, with the keys that their index expects.

    Raises BadFolder.
    """
    place: dict[str, str] = {}
    for path, root in zip(paths, roots, strict=True):
        pairs = pairs_of(root)
        work.spend(len(pairs or ()))
        if not pairs or not all(type(key) is str for key, _ in pairs):
            raise BadFolder(
                f"{path[:200]!r} has the name of a shard, but is not a state_dict: a shard is a dict with str keys",
                rule="shard-kind",
                where=path[:200],
            )
        for key, _ in pairs:
            other = place.setdefault(key, path)
            if other != path:
                raise BadFolder(
                    f"the key {key[:200]!r} is in two shards, {other[:200]!r} and {path[:200]!r}: upload the shards of "
                    "one save",
                    rule="shard-overlap",
                    where=path[:200],
                )
    for path in paths:
        for key in keys_of.get(path, ()):
            if place.get(key) != path:
                raise BadFolder(
                    f"the index of shards places the key {key[:200]!r} in {path[:200]!r}, which does not have it: "
                    "upload the shards that were saved with the index",
                    rule="shard-index",
                    where=path[:200],
                )


_ORDERED_DICT = Global("collections", "OrderedDict")


def _metadata_of(shard: Node) -> list[tuple[Node, Node]]:
    for state in shard.states if isinstance(shard, Call) else ():
        for key, value in pairs_of(state) or ():
            if key == "_metadata":
                return list(pairs_of(value) or ())
    return []
