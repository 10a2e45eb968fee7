"""Which component of a checkpoint a query means."""

from collections.abc import Sequence

from ..errors import SelectionError
from ..values.manifest import Component, Manifest
from .near import near

PREFERRED = ("model_state_dict", "state_dict", "model", "net", "module", "weights", "params")
"""What people call the model's state_dict, the most telling name first."""


def choose_component(manifest: Manifest, wanted: str | None) -> int | None:
    """The index of the component meant, or None for the root's rest: the tensors that belong to no component.

    ``wanted`` is a dotted path, ``""`` for a flat file or the root's rest, None for
    ``default_component``. Raises SelectionError ``unknown-component`` or ``component-ambiguous``.
    """
    return _default(manifest) if wanted is None else _named(manifest, wanted)


def default_component(components: Sequence[Component]) -> int | None:
    """The index of the component meant when none is named: the only one, else the first of PREFERRED, else the only
    state_dict; else None.
    """
    if len(components) == 1:
        return 0
    paths = [component.path for component in components]
    preferred = next((paths.index((name,)) for name in PREFERRED if (name,) in paths), None)
    if preferred is not None:
        return preferred
    state_dicts = [i for i, component in enumerate(components) if component.kind == "state_dict"]
    return state_dicts[0] if len(state_dicts) == 1 else None


def _default(manifest: Manifest) -> int | None:
    number = default_component(manifest.components)
    if number is not None or not manifest.components:
        return number
    names = _names(manifest)
    raise SelectionError(
        f"the checkpoint has {len(manifest.components)} components; name one of {_listed(names)}",
        code="component-ambiguous",
        near=names,
    )


def _named(manifest: Manifest, wanted: str) -> int | None:
    found = [i for i, component in enumerate(manifest.components) if component.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        paths = ", ".join(str(list(manifest.components[i].path)) for i in found)
        raise SelectionError(
            f"component={wanted!r} is ambiguous: {paths} are all written so", code="component-ambiguous"
        )
    if not wanted and any(tensor.component is None for tensor in manifest.tensors):
        return None
    names = _names(manifest)
    text = "has no tensor outside its components" if not wanted else f"has no component {wanted!r}"
    raise SelectionError(
        f"the checkpoint {text}; it has {_listed(names)}",
        code="unknown-component",
        near=near(wanted, names) or names[:3],
    )


def _names(manifest: Manifest) -> tuple[str, ...]:
    return tuple(dict.fromkeys(component.name for component in manifest.components))


def _listed(names: tuple[str, ...], limit: int = 20) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(map(repr, names[:limit])) or "none") + rest
