"""Targets into which a component is loaded: modules and optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._errors import StateDictMismatch
from .._printable import printable
from .._query import Selection
from .._report import Report, misfit
from .._torch import is_lazy, is_uninitialized
from .ask import missing_and_unexpected, undone_on_error
from .changes import Change, Fingerprints
from .in_place import Coming, is_unobserved
from .match import match
from .objects import component_of, matched


class Target(Protocol):
    """A target into which a component is loaded.

    ``touched`` tells whether the target may have changed by now, ``in_place`` lists the keys known to be loaded.
    """

    report: Report
    touched: bool
    in_place: tuple[str, ...]

    def fetch(self) -> Any:
        """Return the state, complete and checked; the target is not touched."""

    def fetch_change(self, known: Fingerprints) -> Change:
        """Fetch the difference from the state with the fingerprints ``known``; the target is not touched."""

    def put(self, state: Any) -> None: ...

    def load(self) -> None:
        """Do ``fetch`` and ``put`` in one step, with less memory if possible."""


class ModuleTarget:
    """A module, and the state to load into it. ``strict`` is that of load_state_dict."""

    def __init__(self, report: Report, coming: Callable[[], Coming], module: Any, *, strict: bool) -> None:
        self.report = report
        self.touched = False
        self.in_place: tuple[str, ...] = ()
        self._coming = coming
        self._module = module
        self._strict = strict

    def fetch(self) -> Any:
        return self._coming().complete()

    def fetch_change(self, known: Fingerprints) -> Change:
        return self._coming().since(known, self._module)

    def put(self, state: Any) -> None:
        self.touched = True
        self._module.load_state_dict(state, strict=self._strict)

    def load(self) -> None:
        coming = self._coming()
        try:
            state = coming.into(self._module)
        except Exception:
            self.touched, self.in_place = coming.touched, coming.in_place
            raise
        self.put(state)


class WarmTarget(ModuleTarget):
    """A module that also gets corners of tensors: the rest of its own tensors stays as it is."""

    def put(self, state: Any) -> None:
        self.touched = True
        own = self._module.state_dict()
        for key in (each.key for each in self.report.resized_keys):
            whole = own[key].clone()
            whole[tuple(map(slice, state[key].shape))] = state[key]
            state[key] = whole
        super().put(state)


class AskedTarget(ModuleTarget):
    """A module that may accept other keys than its own: it gets the whole component, and reports the missing keys.

    If it refuses keys or shapes that are not its own, it is left as it was.
    """

    def fetch_change(self, known: Fingerprints) -> Change:
        return self._coming().whole_since(known)

    def put(self, state: Any) -> None:
        if _shapes(self._module.state_dict()) == _shapes(state):
            self.touched = True
            found = self._module.load_state_dict(state, strict=self._strict)
        else:
            try:
                with undone_on_error(self._module):
                    found = self._module.load_state_dict(state, strict=self._strict)
            except RuntimeError as error:
                raise _mismatch(error, self.report) from error
            self.touched = True
        missing = tuple(getattr(found, "missing_keys", ()))
        self.report = replace(
            self.report,
            matched_keys=tuple(key for key in self._module.state_dict() if key not in missing),
            missing_keys=missing,
            unexpected_keys=tuple(getattr(found, "unexpected_keys", ())),
            mismatched_keys=(),
            skipped_keys=(),
            near=(),
        )

    def load(self) -> None:
        self.put(self.fetch())


def module_target(
    api: ModelApi, checkpoint: Checkpoint, component: str | None, module: Any, *, strict: bool
) -> ModuleTarget:
    """Ask the server what fits, and raise StateDictMismatch if torch would not load it.

    If all keys must be there, the whole component is fetched, including extra state; otherwise only the tensors that
    fit. A module whose own code handles loading gets the whole component, because only that code knows what it accepts.
    """
    selection, label = Selection(component=component), str(checkpoint)
    lazy = is_lazy(module)
    fit = match(api, checkpoint, selection, module, lazy=lazy)
    report = fit.report

    def whole() -> Coming:
        return component_of(api, checkpoint, fit.selection, label=label)

    if lazy or not is_unobserved(module):
        return AskedTarget(report, whole, module, strict=strict)
    if not strict:
        _refuse(report, module, strict=False)
        return ModuleTarget(report, lambda: matched(api, fit.download, label=label), module, strict=False)
    names = (key for key in module.state_dict() if key not in report.missing_keys)
    report = _judged(report, module, [*names, *report.unexpected_keys], None)
    _refuse(report, module, strict=True)
    # Sparse and quantized tensors are fetched with the others, and torch checks whether they fit.
    report = replace(report, matched_keys=(*report.matched_keys, *report.skipped_keys), skipped_keys=())

    def coming() -> Coming:
        state = whole()
        keys = module.state_dict().keys()
        found = replace(
            report,
            missing_keys=tuple(key for key in keys if key not in state.value),
            unexpected_keys=tuple(key for key in state.value if key not in keys),
        )
        metadata = getattr(state.value, "_metadata", None)
        _refuse(_judged(found, module, state.value, metadata), module, strict=True)
        return state

    return ModuleTarget(report, coming, module, strict=True)


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if is_uninitialized(value) else getattr(value, "shape", None) for key, value in state.items()}


def _judged(report: Report, module: Any, keys: Iterable[str], metadata: Mapping[str, Any] | None) -> Report:
    """Return the report of an unobserved module, without the missing keys that torch can do without."""
    if not report.missing_keys:
        return report
    try:
        missing, unexpected = missing_and_unexpected(module, keys, metadata)
    except RuntimeError as error:
        raise _mismatch(error, report) from error
    return replace(report, missing_keys=missing, unexpected_keys=unexpected)


class OptimizerTarget:
    """An optimizer, loaded by its own load_state_dict, all or nothing: its one key is ``""``."""

    def __init__(self, api: ModelApi, checkpoint: Checkpoint, component: str, optimizer: Any) -> None:
        self._api = api
        self._checkpoint = checkpoint
        self._component = component
        self._optimizer = optimizer
        self.touched = False
        self.in_place: tuple[str, ...] = ()
        have = [len(group["params"]) for group in api.param_groups(checkpoint, component)]
        want = [len(group["params"]) for group in optimizer.param_groups]
        if have != want:
            raise StateDictMismatch(
                f"{printable(component)} of {checkpoint} has parameter groups with {have} parameters, "
                f"but the optimizer has groups with {want}"
            )
        size = sum(each.bytes for each in checkpoint.components if each.name == component)
        self.report = Report(str(checkpoint), matched_keys=("",), bytes=size)

    def fetch(self) -> Any:
        return self._coming().complete()

    def fetch_change(self, known: Fingerprints) -> Change:
        change = self._coming().whole_since(known)
        return change if change.state is None else replace(change, keys=("",))

    def _coming(self) -> Coming:
        selection = Selection(component=self._component)
        return component_of(self._api, self._checkpoint, selection, label=str(self._checkpoint))

    def put(self, state: Any) -> None:
        self.touched = True
        self._optimizer.load_state_dict(state)

    def load(self) -> None:
        self.put(self.fetch())


def _refuse(report: Report, module: Any, *, strict: bool) -> None:
    reason = misfit(report, strict=strict)
    if reason is not None:
        raise _mismatch(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{reason}", report)


def _mismatch(reason: object, report: Report) -> StateDictMismatch:
    near = "".join(f"\n\tnear: {printable(each)}" for each in report.near)
    error = StateDictMismatch(f"{printable(report.checkpoint)} is not loaded: {reason}{near}")
    error.near = report.near
    return error
