"""Checkpoints into models and optimizers that exist: checked first, fetched then, and put in place last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ._checkpoint import Checkpoint
from ._errors import InvalidRequest, NoKeysMatched, PartialLoadError, StateDictMismatch
from ._query import Ref, Selection
from ._report import Mismatch, Report, misfit
from ._routes import Routes
from ._torch import is_dense, load, target_tensors, unwrap


class Target(Protocol):
    """Something that a component is loaded into."""

    report: Report

    def fetch(self) -> Any:
        """The state, complete and checked; the target is not touched."""

    def put(self, state: Any) -> None: ...


class ModuleTarget:
    """A module. Making one asks the server what fits, and raises StateDictMismatch if torch would not load it."""

    def __init__(
        self, routes: Routes, checkpoint: Checkpoint, component: str | None, module: Any, *, strict: bool
    ) -> None:
        self._routes = routes
        self._checkpoint = checkpoint
        self._module = module
        self._strict = strict
        self._selection = Selection(component=component)
        self.report, self._download = _match(routes, checkpoint, self._selection, module)
        _refuse(misfit(self.report, strict=strict), checkpoint, module)
        if strict:  # then they are fetched with all the rest, and torch says whether they fit
            keys = (*self.report.matched_keys, *self.report.skipped_keys)
            self.report = replace(self.report, matched_keys=keys, skipped_keys=())

    def fetch(self) -> Any:
        """When all keys must be there, the component as it is, extra state and all; else only what fits."""
        label = str(self._checkpoint)
        if not self._strict:
            return _fetch_matched(self._routes, self._download, label)
        with self._routes.state_dict(self._checkpoint, self._selection, "cpu", label=label) as file:
            state = load(file, "cpu", weights_only=True)
        keys = self._module.state_dict().keys()
        found = Report(
            str(self._checkpoint),
            missing_keys=tuple(key for key in keys if key not in state),
            unexpected_keys=tuple(key for key in state if key not in keys),
        )
        _refuse(misfit(found, strict=True), self._checkpoint, self._module)
        return state

    def put(self, state: Any) -> None:
        self._module.load_state_dict(state, strict=self._strict)


class OptimizerTarget:
    """An optimizer, by its own load_state_dict, all or nothing: its one key is ``""``."""

    def __init__(self, routes: Routes, checkpoint: Checkpoint, component: str, optimizer: Any) -> None:
        self._routes = routes
        self._checkpoint = checkpoint
        self._component = component
        self._optimizer = optimizer
        have = [len(group["params"]) for group in routes.param_groups(checkpoint, component)]
        want = [len(group["params"]) for group in optimizer.param_groups]
        if have != want:
            raise StateDictMismatch(
                f"{component} of {checkpoint} has parameter groups of {have} parameters, the optimizer of {want}"
            )
        size = sum(each.bytes for each in checkpoint.components if each.name == component)
        self.report = Report(str(checkpoint), matched_keys=("",), bytes=size)

    def fetch(self) -> Any:
        selection = Selection(component=self._component)
        with self._routes.state_dict(self._checkpoint, selection, "cpu", label=str(self._checkpoint)) as file:
            return load(file, "cpu", weights_only=True)

    def put(self, state: Any) -> None:
        self._optimizer.load_state_dict(state)


def load_into(routes: Routes, target: Any, ref: Ref, *, strict: bool, staged: bool) -> Report:
    """As Model.load_into says."""
    given: Mapping[str | None, Any] = target if isinstance(target, Mapping) else {None: target}
    named = {name: unwrap(value) for name, value in given.items()}
    checkpoint = routes.checkpoint(ref)
    targets = [_target_of(routes, checkpoint, name, value, strict=strict) for name, value in named.items()]
    reports = [_prefixed(each.report, name) for each, name in zip(targets, named)]
    states = [each.fetch() for each in targets] if staged else []
    done, touched = 0, False
    try:
        for done, each in enumerate(targets):  # noqa: B007  how many were done when it failed
            state = states.pop(0) if staged else each.fetch()
            touched = True
            each.put(state)
    except Exception as error:
        if not touched:
            raise
        loaded, remaining = _matched(reports[:done]), _matched(reports[done:])
        raise PartialLoadError(
            f"{checkpoint} is loaded in part: {len(loaded)} keys are in place, {len(remaining)} may not be: {error}",
            loaded,
            remaining,
        ) from error
    return _merged(str(checkpoint), reports)


def warmstart(routes: Routes, net: Any, ref: Ref, selection: Selection) -> Report:
    """As Model.warmstart says."""
    module = unwrap(net)
    report, download = _match(routes, ref, selection, module)
    if download is None:
        raise NoKeysMatched(f"no key of the model has its like in {report.checkpoint}, so nothing was loaded\n{report}")
    state = _fetch_matched(routes, download, report.checkpoint)
    try:
        module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise PartialLoadError(f"{report.checkpoint} is loaded in part: {error}", (), report.matched_keys) from error
    return report


def _match(routes: Routes, ref: Ref, selection: Selection, module: Any) -> tuple[Report, str | None]:
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


def _target_of(routes: Routes, checkpoint: Checkpoint, name: str | None, target: Any, *, strict: bool) -> Target:
    if hasattr(target, "named_parameters"):
        return ModuleTarget(routes, checkpoint, name, target, strict=strict)
    if name is not None and hasattr(target, "param_groups") and hasattr(target, "load_state_dict"):
        return OptimizerTarget(routes, checkpoint, name, target)
    hint = "an optimizer goes in a dict, under its component's name" if name is None else "load() gives all else"
    raise InvalidRequest(f"a checkpoint is loaded into modules and optimizers, not a {type(target).__name__}; {hint}")


def _fetch_matched(routes: Routes, download: str | None, label: str) -> Any:
    if download is None:
        return {}
    with routes.matched(download, label=label) as file:
        return load(file, "cpu", weights_only=True)


def _refuse(reason: str | None, checkpoint: Checkpoint, module: Any) -> None:
    if reason is not None:
        name = type(module).__name__
        raise StateDictMismatch(f"Error(s) in loading state_dict for {name} from {checkpoint}:\n\t{reason}")


def _prefixed(report: Report, name: str | None) -> Report:
    """The same under the names that the keys have in the whole checkpoint."""
    if not name:
        return report

    def long(keys: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{name}.{key}" if key else name for key in keys)

    return replace(
        report,
        matched_keys=long(report.matched_keys),
        missing_keys=long(report.missing_keys),
        unexpected_keys=long(report.unexpected_keys),
        mismatched_keys=tuple(Mismatch(f"{name}.{m.key}", m.have, m.want) for m in report.mismatched_keys),
        cast_keys=long(report.cast_keys),
        skipped_keys=long(report.skipped_keys),
    )


def _merged(checkpoint: str, reports: Sequence[Report]) -> Report:
    return Report(
        checkpoint=checkpoint,
        matched_keys=_matched(reports),
        missing_keys=tuple(key for each in reports for key in each.missing_keys),
        unexpected_keys=tuple(key for each in reports for key in each.unexpected_keys),
        mismatched_keys=tuple(mismatch for each in reports for mismatch in each.mismatched_keys),
        cast_keys=tuple(key for each in reports for key in each.cast_keys),
        skipped_keys=tuple(key for each in reports for key in each.skipped_keys),
        bytes=sum(each.bytes for each in reports),
    )


def _matched(reports: Sequence[Report]) -> tuple[str, ...]:
    return tuple(key for each in reports for key in each.matched_keys)
