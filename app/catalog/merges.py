"""The recipe of a merge, as JSON."""

from collections.abc import Mapping
from typing import Any

from ..values.checkpoint import Merge, MergeSource, parse_checkpoint_name


def merge_to_json(merge: Merge) -> dict[str, Any]:
    return {
        "method": merge.method,
        "component": merge.component,
        "decay": merge.decay,
        "of": [[str(source.checkpoint), source.weight] for source in merge.sources],
    }


def merge_from_json(data: Mapping[str, Any]) -> Merge:
    sources = ((parse_checkpoint_name(name), weight) for name, weight in data["of"])
    return Merge(
        data["method"],
        tuple(MergeSource(name, weight) for name, weight in sources if name is not None),
        data["component"],
        data["decay"],
    )
