"""Selection of the tree to write, from a checkpoint's tree and a query. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SelectionError
from ..formats.casts import Caster
from ..formats.components import node_of, nodes_of
from ..formats.modules import is_module, state_dict_pairs
from ..formats.narrowing import narrowed
from ..formats.pickle.nodes import Call, Dict, Global, Node, TensorRef
from ..formats.tensor_kinds import kind_of
from ..formats.torch_tensors import is_tensor, tensor_of
from ..formats.tree import pairs_of, walk
from ..formats.weights_only import Keeper, is_leaf
from ..select.components import choose_component
from ..select.keys import select_keys, select_leaves
from ..select.modules import select_modules
from ..select.patterns import PatternSet
from ..select.query import StateDictQuery
from ..select.warmstart import Fitted
from ..values.dtype import DTYPES, DType
from ..values.manifest import Manifest, Path, dotted
from ..values.work import Work

LEFT_OUT_REVISION = 2
"""Revision of the rules for leaving values out, in the ETags of files that lack some. Raise it with each change."""


@dataclass(frozen=True, slots=True)
class Picked:
    """The tree to write, without values that cannot be written: ``left_out`` are their dotted paths.

    ``targets`` are the new dtypes of the cast tensors, by the ids of their TensorRefs; ``corners`` are the tensors that
    are parts of those that were saved; ``is_flat`` says that the tree is a state_dict.
    """

    tree: Node
    left_out: tuple[str, ...]
    targets: Mapping[int, DType]
    is_flat: bool
    corners: tuple[TensorRef, ...] = ()

    def leaves(self, work: Work) -> Iterator[tuple[str, Node]]:
        """Iterate over keys, or dotted paths, and values."""
        if self.is_flat:
            return iter(self.tree.pairs)
        return ((_name(path, work), node) for path, node in walk(self.tree, is_leaf, work))


def pick(
    root: Node,
    manifest: Manifest,
    query: StateDictQuery,
    only: Sequence[str] | None,
    fitted: Sequence[Fitted],
    work: Work,
) -> Picked:
    """Pick the component a query means; of a state_dict, only the new keys ``only``, if given, and of these the
    ``fitted`` ones in their new shapes and dtypes.

    Raises SelectionError.
    """
    number = choose_component(manifest, query.component)
    if number is None:
        skip = frozenset(map(id, nodes_of(root, manifest.components, work).values()))
        picked = _pick_leaves(root, query, skip, work, keeps_steps=False)
        if picked.left_out and not any(is_tensor(node) for _, node in walk(picked.tree, is_leaf, work)):
            raise _nothing_to_serve(map(repr, picked.left_out[:3]), query)
        return picked
    node = node_of(root, manifest.components, number, work)
    if manifest.components[number].kind == "optimizer":
        return _pick_leaves(node, query, frozenset(), work, keeps_steps=True)
    fits = {each.key: each for each in fitted}
    return _pick_keys(node, query, None if only is None else frozenset(only), fits, work)


def _nothing_to_serve(what: Iterable[str], query: StateDictQuery) -> SelectionError:
    without = "without their bytes" if query.device == "meta" else "by torch.load(weights_only=True)"
    return SelectionError(
        f"the component has no tensor that can be loaded {without} (for example {', '.join(what)}). Download the whole "
        "checkpoint with file?weights_only=false, or the uploaded file with original",
        code="component-empty",
    )


def _name(path: Path, work: Work) -> str:
    """Join a path as text, and spend work on its length: paths may share long names, but each text repeats them."""
    text = dotted(path)
    work.spend(len(text) // 8)
    return text


def _caster(query: StateDictQuery) -> Caster | None:
    if query.dtype is None:
        return None
    excluded = PatternSet(query.dtype_exclude) if query.dtype_exclude else None
    return Caster(DTYPES[query.dtype], lambda name: excluded is None or not excluded.matches(name))


def _pick_keys(
    state_dict: Node, query: StateDictQuery, only: frozenset[str] | None, fitted: Mapping[str, Fitted], work: Work
) -> Picked:
    """Copy the picked keys of a state_dict to an OrderedDict, under their new names; rename ``_metadata`` too."""
    pairs = state_dict_pairs(state_dict, work)
    keys = [key for key, _ in pairs]
    selected = select_keys(keys, query, work)
    keeper, fitter = Keeper(meta=query.device == "meta", work=work), _Fitter(_caster(query), fitted)
    picked = Call(Global("collections", "OrderedDict"), ())
    kept_pairs: list[tuple[Node, Node]] = []
    for i, new in selected:
        if only is None or new in only:
            value, kept = keeper.keep_value(pairs[i][1], (keys[i],))
            if kept:
                kept_pairs.append((new, fitter.fit(new, value)))
    picked.pairs = kept_pairs
    modules = [] if is_module(state_dict, work) else pairs_of(keeper.metadata_of(state_dict)) or []
    names = [module for module, _ in modules]
    if modules and all(type(name) is str for name in names):
        metadata = Call(Global("collections", "OrderedDict"), ())
        metadata.pairs = [(new, modules[i][1]) for i, new in select_modules(names, keys, selected, query)]
        picked.states = [Dict([("_metadata", metadata)])]
    if keeper.left_out:
        chosen = [pairs[i] for i, new in selected if only is None or new in only]
        had = any(is_tensor(value) for _, value in chosen)
        if not kept_pairs or (had and not any(is_tensor(value) for _, value in kept_pairs)):
            raise _nothing_to_serve([f"{key!r} is a {kind_of(value)}" for key, value in chosen[:3]], query)
    return Picked(
        picked, tuple(map(dotted, keeper.left_out)), fitter.targets, is_flat=True, corners=tuple(fitter.corners)
    )


class _Fitter:
    """Casts values with ``caster``, and brings the ``fitted`` ones into their shapes and dtypes."""

    def __init__(self, caster: Caster | None, fitted: Mapping[str, Fitted]) -> None:
        self._caster = caster
        self._fitted = fitted
        self._by_dtype = {
            each.dtype: Caster(DTYPES[each.dtype], lambda _: True) for each in fitted.values() if each.dtype is not None
        }
        self.corners: list[TensorRef] = []

    @property
    def targets(self) -> dict[int, DType]:
        casters = [*self._by_dtype.values(), *([] if self._caster is None else [self._caster])]
        return {ref: dtype for each in casters for ref, dtype in each.targets.items()}

    def fit(self, new: str, value: Node) -> Node:
        fitted = self._fitted.get(new, Fitted(new))
        whole = tensor_of(value) if fitted.shape is not None else None
        if whole is not None:
            value = narrowed(whole, [(0, size) for size in fitted.shape or ()])
        caster = self._caster if fitted.dtype is None else self._by_dtype[fitted.dtype]
        value = value if caster is None else caster.cast(new, value)
        if whole is not None and isinstance(value, TensorRef):
            self.corners.append(value)
        return value


def _pick_leaves(tree: Node, query: StateDictQuery, skip: frozenset[int], work: Work, *, keeps_steps: bool) -> Picked:
    """Copy a tree with the picked leaves, without the nodes whose ids are in ``skip``.

    A container that loses all its leaves is dropped. An optimizer's ``step`` stays float32: 16 bits are full after
    some hundred steps.
    """
    leaves = walk(tree, lambda node: is_leaf(node) or id(node) in skip, work)
    paths = [path for path, node in leaves if id(node) not in skip]
    names = [_name(path, work) for path in paths]
    wanted = {
        names[i] for i in select_leaves(names, query, work)
    }  # text: a file may choose integers whose hashes collide
    caster = _caster(query)

    def changed(path: Path, node: Node) -> Node:
        if caster is None or (keeps_steps and path[-1:] == ("step",)):
            return node
        return caster.cast(dotted(path), node)

    keeper = Keeper(lambda path: dotted(path) in wanted, skip, query.device == "meta", changed, work)
    kept = keeper.keep(tree)
    targets = {} if caster is None else caster.targets
    return Picked(kept, tuple(map(dotted, keeper.left_out)), targets, is_flat=False)
