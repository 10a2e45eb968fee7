"""Checkpoints into models and optimizers that exist: checked first, fetched then, and put in place last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ._checkpoint import Checkpoint
from ._errors import InvalidRequest, NoKeysMatched, PartialLoadError, StateDictMismatch
from ._in_place import Coming
from ._load import component_of, matched
from ._printable import printable
from ._query import Ref, Selection
from ._report import Mismatch, Report, misfit
from ._routes import Routes
from ._torch import is_dense, target_tensors, unwrap


class Target(Protocol):
    """Something that a component is loaded into.

    ``touched`` says whether it may have changed by now, ``in_place`` which keys are known to be loaded.
    """

    report: Report
    touched: bool
    in_place: tuple[str, ...]

    def fetch(self) -> Any:
        """The state, complete and checked; the target is not touched."""

    def put(self, state: Any) -> None: ...

    def load(self) -> None:
        """``fetch`` and ``put`` in one, with less memory if that can be."""


class ModuleTarget:
    """A module, and what is to be loaded into it. ``strict`` is load_state_dict's."""

    def __init__(self, report: Report, coming: Callable[[], Coming], module: Any, *, strict: bool) -> None:
        self.report = report
        self.touched = False
        self.in_place: tuple[str, ...] = ()
        self._coming = coming
        self._module = module
        self._strict = strict

    def fetch(self) -> Any:
        return self._coming().complete()

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


def module_target(
    routes: Routes, checkpoint: Checkpoint, component: str | None, module: Any, *, strict: bool
) -> ModuleTarget:
    """Asks the server what fits, and raises StateDictMismatch if torch would not load it.

    When all keys must be there, the component is fetched as it is, extra state and all; else only what fits.
    """
    selection = Selection(component=component)
    report, download = _match(routes, checkpoint, selection, module)
    _refuse(misfit(report, strict=strict), checkpoint, module)
    label = str(checkpoint)
    if not strict:
        return ModuleTarget(report, lambda: matched(routes, download, label=label), module, strict=False)
    # Sparse tensors and such are fetched with all the rest, and torch says whether they fit.
    report = replace(report, matched_keys=(*report.matched_keys, *report.skipped_keys), skipped_keys=())

    def coming() -> Coming:
        state = component_of(routes, checkpoint, selection, label=label)
        keys = module.state_dict().keys()
        found = Report(
            label,
            missing_keys=tuple(key for key in keys if key not in state.value),
            unexpected_keys=tuple(key for key in state.value if key not in keys),
        )
        _refuse(misfit(found, strict=True), checkpoint, module)
        return state

    return ModuleTarget(report, coming, module, strict=True)


class OptimizerTarget:
    """An optimizer, by its own load_state_dict, all or nothing: its one key is ``""``."""

    def __init__(self, routes: Routes, checkpoint: Checkpoint, component: str, optimizer: Any) -> None:
        self._routes = routes
        self._checkpoint = checkpoint
        self._component = component
        self._optimizer = optimizer
        self.touched = False
        self.in_place: tuple[str, ...] = ()
        have = [len(group["params"]) for group in routes.param_groups(checkpoint, component)]
        want = [len(group["params"]) for group in optimizer.param_groups]
        if have != want:
            raise StateDictMismatch(
                f"{printable(component)} of {checkpoint} has parameter groups of {have} parameters, "
                f"the optimizer of {want}"
            )
        size = sum(each.bytes for each in checkpoint.components if each.name == component)
        self.report = Report(str(checkpoint), matched_keys=("",), bytes=size)

    def fetch(self) -> Any:
        selection = Selection(component=self._component)
        return component_of(self._routes, self._checkpoint, selection, label=str(self._checkpoint)).complete()

    def put(self, state: Any) -> None:
        self.touched = True
        self._optimizer.load_state_dict(state)

    def load(self) -> None:
        self.put(self.fetch())


def load_into(routes: Routes, target: Any, ref: Ref, *, strict: bool, staged: bool) -> Report:
    """As Model.load_into says."""
    given: Mapping[str | None, Any] = target if isinstance(target, Mapping) else {None: target}
    named = {name: unwrap(value) for name, value in given.items()}
    checkpoint = routes.checkpoint(ref)
    targets = [_target_of(routes, checkpoint, name, value, strict=strict) for name, value in named.items()]
    reports = [_prefixed(each.report, name) for each, name in zip(targets, named)]
    states = [each.fetch() for each in targets] if staged else []
    done = 0
    try:
        for done, each in enumerate(targets):  # noqa: B007  how many were done when it failed
            if staged:
                each.put(states.pop(0))
            else:
                each.load()
    except Exception as error:
        failed, name = targets[done], list(named)[done]
        if not done and not failed.touched:
            raise
        loaded = (*_matched(reports[:done]), *_long(failed.in_place, name))
        raise _partial(checkpoint, loaded, _matched(reports[done:]), error) from error
    return _merged(str(checkpoint), reports)


def warmstart(routes: Routes, net: Any, ref: Ref, selection: Selection) -> Report:
    """As Model.warmstart says."""
    module = unwrap(net)
    report, download = _match(routes, ref, selection, module)
    if download is None:
        raise NoKeysMatched(
            f"no key of the model has its like in {printable(report.checkpoint)}, so nothing was loaded\n{report}"
        )
    target = ModuleTarget(report, lambda: matched(routes, download, label=report.checkpoint), module, strict=False)
    try:
        target.load()
    except Exception as error:
        if not target.touched:
            raise
        raise _partial(report.checkpoint, target.in_place, report.matched_keys, error) from error
    return report


def _partial(checkpoint: object, loaded: Sequence[str], keys: Sequence[str], error: Exception) -> PartialLoadError:
    """``keys`` are those of which some may not be loaded."""
    in_place = set(loaded)
    remaining = tuple(key for key in keys if key not in in_place)
    return PartialLoadError(
        f"{checkpoint} is loaded in part: {len(loaded)} keys are in place, {len(remaining)} may not be: {error}",
        loaded,
        remaining,
    )


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
        return module_target(routes, checkpoint, name, target, strict=strict)
    if name is not None and hasattr(target, "param_groups") and hasattr(target, "load_state_dict"):
        return OptimizerTarget(routes, checkpoint, name, target)
    hint = "an optimizer goes in a dict, under its component's name" if name is None else "load() gives all else"
    raise InvalidRequest(f"a checkpoint is loaded into modules and optimizers, not a {type(target).__name__}; {hint}")


def _refuse(reason: str | None, checkpoint: Checkpoint, module: Any) -> None:
    if reason is not None:
        name = type(module).__name__
        raise StateDictMismatch(f"Error(s) in loading state_dict for {name} from {checkpoint}:\n\t{reason}")


def _prefixed(report: Report, name: str | None) -> Report:
    """The same under the names that the keys have in the whole checkpoint."""
    if not name:
        return report
    return replace(
        report,
        matched_keys=_long(report.matched_keys, name),
        missing_keys=_long(report.missing_keys, name),
        unexpected_keys=_long(report.unexpected_keys, name),
        mismatched_keys=tuple(Mismatch(f"{name}.{m.key}", m.have, m.want) for m in report.mismatched_keys),
        cast_keys=_long(report.cast_keys, name),
        skipped_keys=_long(report.skipped_keys, name),
    )


def _long(keys: Sequence[str], name: str | None) -> tuple[str, ...]:
    return tuple(keys) if not name else tuple(f"{name}.{key}" if key else name for key in keys)


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
