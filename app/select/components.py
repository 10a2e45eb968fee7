"""Choice of the component that a query means."""

from collections.abc import Sequence

from ..errors import SelectionError
from ..values.manifest import Component, Manifest
from ..values.usual import MODELS, is_support
from .near import CONSIDERED, near

_USUAL = tuple((name,) for name in MODELS)


def choose_component(manifest: Manifest, wanted: str | None) -> int | None:
    """Index of the component meant, or None for the root's rest: the tensors that belong to no component.

    ``wanted`` is a dotted path, ``""`` for a flat file or the root's rest, None for
    ``default_component``. Raises SelectionError ``unknown-component`` or ``component-ambiguous``.
    """
    return _default(manifest) if wanted is None else _named(manifest, wanted)


def component_with_key(manifest: Manifest, wanted: str | None, key: str) -> int | None:
    """Index of the component that has the tensor ``key``: the one that is named, else the default one, else the only
    one with such a tensor. None for the root's rest.

    Raises SelectionError ``unknown-component``, ``component-ambiguous`` or ``tensor-ambiguous``.
    """
    if wanted is not None:
        return _named(manifest, wanted)
    default = default_component(manifest.components)
    having = list(dict.fromkeys(tensor.component for tensor in manifest.tensors if tensor.is_at(key)))
    if default is not None and (default in having or not having):
        return default
    if len(having) == 1 or not manifest.components:
        return having[0] if having else None
    if not having:
        raise unknown_tensor(key, [tensor.key for tensor in manifest.tensors[:CONSIDERED]])
    names = ["" if number is None else manifest.components[number].name for number in having]
    raise SelectionError(
        f"{len(having)} components have a tensor {key[:200]!r}; choose one, as in component={names[0]!r}: "
        f"{_listed(list(map(repr, names)))}",
        code="tensor-ambiguous",
        near=names[:3],
    )


def unknown_tensor(key: str, keys: Sequence[str]) -> SelectionError:
    """Return the error for a key that is not among ``keys``."""
    close = near(key, keys)
    hint = f"did you mean {close[0][:200]!r}?" if close else f"it has {_listed([repr(k[:100]) for k in keys[:3]], 2)}"
    return SelectionError(
        f"the component has no tensor {key[:200]!r}; {hint}", code="unknown-tensor", near=close or tuple(keys[:3])
    )


def default_component(components: Sequence[Component]) -> int | None:
    """Index of the component meant if none is named: the only state_dict, else the first of MODELS; if there is
    no state_dict, the only optimizer. None if the choice would be a guess.

    Schedulers and the like do not count beside others. If an optimizer has a name of MODELS, the model could not be
    read, and no other component is served in its place.
    """
    if len(components) == 1:
        return None if components[0].named_only else 0
    candidates = [i for i, component in enumerate(components) if not component.named_only]
    models = [i for i in candidates if components[i].kind == "state_dict" and not is_support(components[i].path)]
    if not models:
        optimizers = [i for i in candidates if components[i].kind == "optimizer"]
        return optimizers[0] if len(optimizers) == 1 else None
    if any(components[i].kind == "optimizer" and components[i].path in _USUAL for i in candidates):
        return None
    if len(models) == 1:
        return models[0]
    paths = {components[i].path: i for i in reversed(models)}
    return next((paths[path] for path in _USUAL if path in paths), None)


def _default(manifest: Manifest) -> int | None:
    number = default_component(manifest.components)
    if number is not None or not manifest.components:
        return number
    raise SelectionError(
        f"the checkpoint has {len(manifest.components)} components and no default; choose one, as in "
        f"component={manifest.components[0].name!r}: {_listed(_sized(manifest))}",
        code="component-ambiguous",
        near=_names(manifest),
    )


def _named(manifest: Manifest, wanted: str) -> int | None:
    found = [i for i, component in enumerate(manifest.components) if component.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        paths = ", ".join(str(list(manifest.components[i].path)) for i in found)
        raise SelectionError(
            f"component={wanted!r} is ambiguous: it could be any of {paths}", code="component-ambiguous"
        )
    if not wanted and any(tensor.component is None for tensor in manifest.tensors):
        return None
    names = _names(manifest)
    text = "has no tensors outside its components" if not wanted else f"has no component {wanted!r}"
    raise SelectionError(
        f"the checkpoint {text}; it has {_listed(list(map(repr, names)))}",
        code="unknown-component",
        near=near(wanted, names) or names[:3],
    )


def _names(manifest: Manifest) -> tuple[str, ...]:
    return tuple(dict.fromkeys(component.name for component in manifest.components))


def _sized(manifest: Manifest) -> Sequence[str]:
    return [
        f"{each.name!r} ({'an optimizer, ' if each.kind == 'optimizer' else ''}{each.nbytes:,} bytes)"
        for each in manifest.components
    ]


def _listed(names: Sequence[str], limit: int = 20) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + rest
