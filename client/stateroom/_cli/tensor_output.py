"""Output of a checkpoint's tensors for people: its keys, as a list or as a tree, and the settings of optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.filesize import decimal

from .._printable import printable
from .._tensor_info import TensorInfo
from .output import say, table
from .tree import tree_of

MANY = 20  # items of a list are shown, of a group's parameter ids, say; the JSON has all of them


def tensors_tables(
    tensors: Iterable[TensorInfo], param_groups: Mapping[str, Sequence[Mapping[str, Any]]], *, tree: bool
) -> None:
    """Print each component's keys with their sizes, and after an optimizer its ``param_groups``."""
    components: dict[str | None, list[TensorInfo]] = {None: []}
    for tensor in tensors:
        components.setdefault(tensor.component, []).append(tensor)
    for component in dict.fromkeys([*components, *param_groups]):
        if component is not None:
            _component(component or '""', components.get(component, ()), param_groups.get(component, ()), tree=tree)
    if components[None]:
        _component("outside all components", components[None], (), tree=tree)


def _component(title: str, tensors: Sequence[TensorInfo], groups: Sequence[Mapping[str, Any]], *, tree: bool) -> None:
    say(f"\n{printable(title)}")
    rows = _tree(tensors) if tree else [_cells(tensor.key, tensor) for tensor in tensors]
    header = ["KEY", "SHAPE", "DTYPE", "DEVICE", "SIZE", "SHARED WITH"]
    if not any(tensor.shared_with for tensor in tensors):
        header, rows = header[:-1], [row[:-1] for row in rows]
    if rows:
        table(header, rows, right=["SIZE"])
    for number, group in enumerate(groups):
        settings = ", ".join(f"{name}={_shown(value)}" for name, value in group.items())
        say(printable(f"param_groups[{number}]: {settings}"))


def _tree(tensors: Sequence[TensorInfo]) -> list[list[str]]:
    return [
        [line.label, f"{line.count:,} tensors", "", "", decimal(line.bytes), ""]
        if line.tensor is None
        else _cells(line.label, line.tensor)
        for line in tree_of(tensors)
    ]


def _cells(key: str, tensor: TensorInfo) -> list[str]:
    return [
        key,
        "none yet" if tensor.shape is None else " x ".join(map(str, tensor.shape)) or "scalar",
        tensor.dtype,
        tensor.device,
        decimal(tensor.bytes),
        _few(tensor.shared_with),
    ]


def _shown(value: Any) -> str:
    return f"[{_few(value)}]" if isinstance(value, list) else str(value)


def _few(values: Sequence[Any]) -> str:
    more = [f"... {len(values) - MANY} more"] if len(values) > MANY else []
    return ", ".join([*map(str, values[:MANY]), *more])
