"""What of a checkpoint fits a module, by names, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ._query import Ref, Selection
from ._report import Report
from ._routes import Routes
from ._torch import is_dense, target_tensors


def match(routes: Routes, ref: Ref, selection: Selection, module: Any) -> tuple[Report, str | None]:
    """Routes.match of the module's tensors. The server lists dense ones only, so it isn't asked about the others:
    whatever it holds of them, they are skipped.
    """
    tensors = target_tensors(module)
    dense = {key: tensor for key, tensor in tensors.items() if is_dense(tensor)}
    report, download = routes.match(ref, selection, described(dense))
    skipped = tuple(key for key in tensors if key not in dense)
    unexpected = tuple(key for key in report.unexpected_keys if key not in tensors)
    return replace(report, skipped_keys=skipped, unexpected_keys=unexpected), download


def described(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Keys, shapes and dtypes as the warmstart route reads them."""
    return {
        key: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).partition(".")[2]}
        for key, tensor in tensors.items()
    }
