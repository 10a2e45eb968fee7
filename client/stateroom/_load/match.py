"""Matching of a checkpoint with a module, by names, shapes and dtypes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._api import ModelApi
from .._errors import InvalidRequest, NoKeysMatched
from .._query import Ref, Selection, listed
from .._report import Report
from .._torch import is_dense, is_uninitialized, target_tensors
from .._types import Patterns
from .in_place import is_unobserved
from .prefixes import RUNS, has_wrappers, prefix_hint, renames_between, wrappers_in

_REGEX = "re:"


@dataclass(frozen=True)
class Fit:
    """A selection under the module's names, its report, and the path that downloads the matched tensors, if any."""

    report: Report
    download: str | None
    selection: Selection

    @property
    def keys(self) -> list[str]:
        """Return the checkpoint's keys, as the selection names them."""
        report = self.report
        reshaped = (*report.mismatched_keys, *report.resized_keys)
        return [*report.matched_keys, *report.unexpected_keys, *(each.key for each in reshaped)]

    @property
    def known(self) -> int:
        """Return the number of selected keys that the module has too."""
        return len(self.report.matched_keys) + len(self.report.mismatched_keys) + len(self.report.resized_keys)


def match(api: ModelApi, ref: Ref, selection: Selection, module: Any, *, lazy: bool = False) -> Fit:
    """Match the selection with the module, under the checkpoint's own names, or without either side's wrappers if more
    keys match then.

    Raises InvalidRequest for lazy tensors, unless ``lazy`` allows them: they have no shape, and are mismatched.
    """
    tensors = target_tensors(module, lazy=lazy)
    try:
        exact = _asked(api, ref, selection, tensors)
    except NoKeysMatched:
        other = None if selection.renames else _without_wrappers(api, ref, selection, tensors, None)
        if other is None:
            raise
        return _with_hint(other, tensors)
    if not exact.report.missing_keys and not exact.report.unexpected_keys:
        return exact
    other = None if selection.renames else _without_wrappers(api, ref, selection, tensors, exact)
    if other is not None and (other.known > exact.known or not (exact.known or is_unobserved(module))):
        return _with_hint(other, tensors)
    return _with_hint(exact, tensors)


def _without_wrappers(
    api: ModelApi, ref: Ref, selection: Selection, tensors: Mapping[str, Any], exact: Fit | None
) -> Fit | None:
    """Match with renamed keys, and with patterns that also apply inside wrappers."""
    found = exact
    try:
        if (selection.include or selection.exclude) and (exact is None or has_wrappers(exact.keys)):
            selection = replace(selection, include=_inside(selection.include), exclude=_inside(selection.exclude))
            found = _asked(api, ref, selection, tensors)
        renames = [] if found is None else renames_between(found.keys, tensors.keys())
        if not renames:
            return found
        other = _asked(api, ref, replace(selection, rename=renames), tensors)
    except InvalidRequest:  # no key is selected, two keys would have one name, or the request is too large
        return None
    return replace(other, report=replace(other.report, prefix=wrappers_in(renames)))


def _inside(patterns: Patterns) -> list[str]:
    """Return the patterns, and each pattern again for keys behind a wrapper."""
    inside = []
    for pattern in listed(patterns):
        inside.append(pattern)
        for run in RUNS:
            expression = pattern[len(_REGEX) :] if pattern.startswith(_REGEX) else None
            inside.append(run + pattern if expression is None else f"{_REGEX}{re.escape(run)}(?:{expression})")
    return inside


def _with_hint(fit: Fit, tensors: Mapping[str, Any]) -> Fit:
    """Add a hint to the report: the prefix in which most keys differ from the module's."""
    hint = prefix_hint(fit.keys, tensors.keys(), fit.known)
    if hint is None or fit.selection.rename or fit.selection.add_prefix:
        return fit
    if fit.selection.prefixes:
        field, _, prefix = hint.partition("=")
        if field != "strip_prefix":
            return fit
        hint = f"{field}={[*fit.selection.prefixes, prefix]}"
    return replace(fit, report=replace(fit.report, near=(hint,)))


def _asked(api: ModelApi, ref: Ref, selection: Selection, tensors: Mapping[str, Any]) -> Fit:
    """Call ModelApi.match for the dense tensors. The server lists only dense tensors, so it isn't asked about the
    others, which are skipped.
    """
    dense = {key: tensor for key, tensor in tensors.items() if is_dense(tensor)}
    report, download = api.match(ref, selection, _described(dense))
    skipped = tuple(key for key in tensors if key not in dense)
    unexpected = tuple(key for key in report.unexpected_keys if key not in tensors)
    return Fit(replace(report, skipped_keys=skipped, unexpected_keys=unexpected), download, selection)


def _described(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys, shapes and dtypes in the warmstart route's form."""
    return {
        key: {
            "shape": [] if is_uninitialized(tensor) else list(tensor.shape),
            "dtype": str(tensor.dtype).partition(".")[2],
        }
        for key, tensor in tensors.items()
    }
