"""Module names in a state_dict's ``_metadata`` are renamed with its keys.

A module's version there decides how a strict load reads its keys: BatchNorm's says whether ``num_batches_tracked``
may be missing. So ``module.bn`` has to become ``bn`` when ``module.bn.weight`` becomes ``bn.weight``.
"""

from collections.abc import Iterator, Sequence

from .keys import Selected
from .names import Names
from .query import StateDictQuery


def select_modules(modules: Sequence[str], keys: Sequence[str], selected: Selected, query: StateDictQuery) -> Selected:
    """Return positions in ``modules``, each with the name that its keys have now; the names are distinct.

    ``keys`` and ``selected`` are the input and output of ``select_keys``. A module whose keys went to several modules
    is returned once for each. Modules without a picked key are renamed too and stay: a key that was not asked
    for must not change what their version says about a missing key.
    """
    if not query.renames:
        return tuple(enumerate(modules))
    position = {module: i for i, module in enumerate(modules)}
    claimed: dict[str, int] = {}
    for old, new in _moves(modules, keys, selected, Names(query)):
        if old in position:
            claimed.setdefault(new, position[old])
    return tuple(sorted((i, new) for new, i in claimed.items()))


def _moves(modules: Sequence[str], keys: Sequence[str], selected: Selected, names: Names) -> Iterator[tuple[str, str]]:
    """Yield old and new names of modules. If several get one name, the first has the best claim."""
    for i, new in selected:
        yield _owner(keys[i]), _owner(new)
    owners = dict.fromkeys(_owner(key) for key in keys)
    for key in keys:
        yield _owner(key), _owner(names.final(key))
    # A module without keys of its own (a container, a ReLU) gets the new name of its prefix, if that is still a prefix.
    # Moved ones come first: under strip_prefix=module. the root is the former "module", not the wrapper around it.
    prefixes = [(old, names.final(f"{old}." if old else "")) for old in modules if old not in owners]
    keyless = [(old, prefix.removesuffix(".")) for old, prefix in prefixes if not prefix or prefix.endswith(".")]
    yield from sorted(keyless, key=lambda move: move[0] == move[1])


def _owner(key: str) -> str:
    """Return the module a key belongs to: ``layer1.0`` of ``layer1.0.weight``, ``""`` of ``weight``."""
    return key.rpartition(".")[0]
