"""The module names in a state_dict's ``_metadata`` follow its keys.

A module's version there decides how a strict load reads its keys: BatchNorm's says whether ``num_batches_tracked``
may be missing. So ``module.bn`` has to become ``bn`` when ``module.bn.weight`` becomes ``bn.weight``.
"""

from collections.abc import Iterator, Sequence

from .keys import Selected
from .names import Names
from .query import StateDictQuery


def select_modules(modules: Sequence[str], keys: Sequence[str], selected: Selected, query: StateDictQuery) -> Selected:
    """Positions in ``modules``, each with the name that its keys have now; the names are distinct.

    ``keys`` and ``selected`` are what ``select_keys`` took and gave. A module whose keys went to several modules is
    there once for each. Modules without a picked key are renamed too and stay: what their version says about a
    missing key must not change because the key was not asked for.
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
    """Old and new names of modules. Of those that come to one name, the first has the best claim to it."""
    for i, new in selected:
        yield _owner(keys[i]), _owner(new)
    owners = dict.fromkeys(_owner(key) for key in keys)
    for key in keys:
        yield _owner(key), _owner(names.final(key))
    # A module without keys of its own (a container, a ReLU) goes where its prefix goes, if it still is one. Those that
    # moved come first: under strip_prefix=module. the root is what "module" was, not the wrapper around it.
    prefixes = [(old, names.final(f"{old}." if old else "")) for old in modules if old not in owners]
    keyless = [(old, prefix.removesuffix(".")) for old, prefix in prefixes if not prefix or prefix.endswith(".")]
    yield from sorted(keyless, key=lambda move: move[0] == move[1])


def _owner(key: str) -> str:
    """The module a key belongs to: ``layer1.0`` of ``layer1.0.weight``, ``""`` of ``weight``."""
    return key.rpartition(".")[0]
