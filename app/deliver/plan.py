"""Planning a download: a manifest, a skeleton and a selection become a virtual file. Pure, no I/O.

A skeleton is the bytes of the checkpoint's pickle, or header. It is parsed again for every plan, by what parsed it at
upload: 147 tensors take 3 ms, and no second representation can ever disagree with the first.
"""

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..formats.contents import find_components
from ..formats.layout import trimmed, whole
from ..formats.modules import is_module, state_dict_pairs
from ..formats.pickle.emit import emit
from ..formats.pickle.nodes import Call, Dict, Global, Node
from ..formats.readers import MAX_STEPS, tree_of
from ..formats.torch_zip.write import Record, write_torch_zip
from ..formats.tree import Budget, pairs_of, refs_in, walk
from ..formats.weights_only import Keeper, is_leaf, metadata_of
from ..select.components import choose_component
from ..select.keys import select_keys, select_leaves
from ..select.modules import select_modules
from ..select.query import StateDictQuery
from ..values.manifest import Manifest, Path, dotted
from ..values.span import Span
from ..values.virtual_file import VirtualFile


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a checkpoint is wanted: with ``query`` one component, else the whole, remapped to ``device``.

    ``only`` are the new keys that a warm start matched; None means all that the query picks.
    """

    query: StateDictQuery | None = None
    only: tuple[str, ...] | None = None
    device: str | None = None

    def to_json(self) -> str:
        """Canonical text: what cannot change the answer does not change it."""
        query = None if self.query is None else json.loads(self.query.normalised())
        fields = {"query": query, "only": self.only, "device": self.device}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Wanted":
        fields = json.loads(text)
        only = None if fields["only"] is None else tuple(fields["only"])
        if fields["query"] is None:
            return cls(device=fields["device"])
        query: dict[str, Any] = fields["query"]
        for name in ("include", "exclude", "rename"):
            query[name] = tuple(tuple(v) if isinstance(v, list) else v for v in query.get(name, ()))
        return cls(StateDictQuery(**query), only)


@dataclass(frozen=True, slots=True)
class PlannedStorage:
    """A storage of the planned file: ``span`` is where it lies in that, ``source`` where in the uploaded file."""

    span: Span
    source: Span


@dataclass(frozen=True, slots=True)
class Plan:
    """``left_out`` are the dotted paths of values that a file safe for ``weights_only=True`` cannot hold."""

    file: VirtualFile
    left_out: tuple[str, ...] = ()
    storages: tuple[PlannedStorage, ...] = ()

    def weight(self) -> int:
        """Roughly the bytes it takes in memory."""
        return (
            len(self.file.literals)
            + 16 * len(self.file.starts)
            + 250 * len(self.storages)
            + sum(map(len, self.left_out))
        )


def plan_original(manifest: Manifest) -> Plan:
    file = VirtualFile()
    file.add_span(Span(0, manifest.size))
    return Plan(file)


def plan(manifest: Manifest, skeleton: bytes, wanted: Wanted) -> Plan:
    """Lay out what is wanted. Raises SelectionError."""
    root = tree_of(manifest, skeleton)
    storages = {storage.key: storage for storage in manifest.storages}
    left_out: list[Path] = []
    if wanted.query is None:
        layout = whole(storages, wanted.device)
    else:
        only = None if wanted.only is None else frozenset(wanted.only)
        root, left_out = _pick(root, manifest, wanted.query, only)
        layout = trimmed(refs_in(root), storages, wanted.query.device)
    pickle = emit(root, layout.replace)
    records = [Record(cut.file_span, cut.storage.crc32 if cut.is_whole else None) for cut in layout.cuts]
    file, spans = write_torch_zip(pickle, records, manifest.byteorder)
    return Plan(
        file,
        tuple(map(dotted, left_out)),
        tuple(PlannedStorage(span, record.span) for span, record in zip(spans, records, strict=True)),
    )


def _pick(
    root: Node, manifest: Manifest, query: StateDictQuery, only: frozenset[str] | None
) -> tuple[Node, list[Path]]:
    """The component a query means, as the tree to be written, and the paths of what could not be kept."""
    number = choose_component(manifest, query.component)
    found = find_components(root, Budget(MAX_STEPS))  # in the order in which the manifest lists them
    if number is None:
        return _pick_leaves(root, query, frozenset(id(node) for _, _, node in found))
    _, kind, node = next(islice(found, number, None))
    if kind == "optimizer":
        return _pick_leaves(node, query, frozenset())
    return _pick_keys(node, query, only)


def _pick_keys(state_dict: Node, query: StateDictQuery, only: frozenset[str] | None) -> tuple[Node, list[Path]]:
    """A state_dict as an OrderedDict of the keys picked, under their new names; its ``_metadata`` is renamed along."""
    pairs = state_dict_pairs(state_dict, Budget(MAX_STEPS))
    keys = [key for key, _ in pairs]
    selected = select_keys(keys, query)
    keeper = Keeper(meta=query.device == "meta")
    picked = Call(Global("collections", "OrderedDict"), ())
    kept_pairs = []
    for i, new in selected:
        if only is None or new in only:
            value, kept = keeper.keep_value(pairs[i][1], (keys[i],))
            if kept:
                kept_pairs.append((new, value))
    picked.pairs = kept_pairs
    modules = [] if is_module(state_dict) else pairs_of(metadata_of(state_dict)) or []
    names = [module for module, _ in modules]
    if modules and all(type(name) is str for name in names):
        metadata = Call(Global("collections", "OrderedDict"), ())
        metadata.pairs = [(new, modules[i][1]) for i, new in select_modules(names, keys, selected, query)]
        picked.states = [Dict([("_metadata", metadata)])]
    return picked, keeper.left_out


def _pick_leaves(tree: Node, query: StateDictQuery, skip: frozenset[int]) -> tuple[Node, list[Path]]:
    """A tree with the leaves picked, without the nodes whose ids are in ``skip``.

    Of a container, nothing is left when none of its leaves is.
    """
    leaves = walk(tree, lambda node: is_leaf(node) or id(node) in skip, Budget(MAX_STEPS))
    paths = [path for path, node in leaves if id(node) not in skip]
    names = [dotted(path) for path in paths]
    wanted = {names[i] for i in select_leaves(names, query)}  # text: a file may choose integers whose hashes collide
    keeper = Keeper(lambda path: dotted(path) in wanted, skip, query.device == "meta")
    return keeper.keep(tree), keeper.left_out
