"""Loading of checkpoints into existing models and optimizers: compared first, then fetched, then put in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._errors import InvalidRequest, NoKeysMatched, PartialLoadError
from .._printable import printable
from .._query import Ref, Selection
from .._report import Mismatch, Report
from .._torch import unwrap
from .match import match
from .objects import matched
from .targets import OptimizerTarget, Target, WarmTarget, module_target


def load_into(api: ModelApi, target: Any, ref: Ref, *, strict: bool, staged: bool) -> Report:
    """Implement Model.load_into."""
    named = named_in(target)
    checkpoint = api.checkpoint(ref)
    targets = targets_of(api, checkpoint, named, strict=strict)
    reports = [_prefixed(each.report, name) for each, name in zip(targets, named)]
    states = [each.fetch() for each in targets] if staged else []
    done = 0
    try:
        for done, each in enumerate(targets):  # noqa: B007  the number of loaded targets at an error
            if staged:
                each.put(states.pop(0))
            else:
                each.load()
    except Exception as error:
        failed, name = targets[done], list(named)[done]
        if not done and not failed.touched:
            raise
        loaded = (*_matched(reports[:done]), *long(failed.in_place, name))
        raise partial(checkpoint, loaded, _matched(reports[done:]), error) from error
    return _merged(str(checkpoint), [_prefixed(each.report, name) for each, name in zip(targets, named)])


def warmstart(api: ModelApi, net: Any, ref: Ref, selection: Selection) -> Report:
    """Implement Model.warmstart."""
    module = unwrap(net)
    fit = match(api, ref, selection, module)
    report, download = fit.report, fit.download
    if download is None:
        error = NoKeysMatched(
            f"no key of the model matches a key in {printable(report.checkpoint)}, so nothing was loaded\n{report}"
        )
        error.near = report.near
        raise error
    target = WarmTarget(report, lambda: matched(api, download, label=report.checkpoint), module, strict=False)
    try:
        target.load()
    except Exception as error:
        if not target.touched:
            raise
        keys = (*report.matched_keys, *(each.key for each in report.resized_keys))
        raise partial(report.checkpoint, target.in_place, keys, error) from error
    return report


def named_in(target: Any) -> dict[str | None, Any]:
    """Return the modules and optimizers in ``target`` by their components' names, unwrapped."""
    given: Mapping[str | None, Any] = target if isinstance(target, Mapping) else {None: target}
    return {name: unwrap(value) for name, value in given.items()}


def targets_of(api: ModelApi, checkpoint: Checkpoint, named: Mapping[str | None, Any], *, strict: bool) -> list[Target]:
    """Return the targets, compared with the checkpoint. Raises StateDictMismatch and InvalidRequest."""
    return [_target_of(api, checkpoint, name, value, strict=strict) for name, value in named.items()]


def partial(checkpoint: object, loaded: Sequence[str], keys: Sequence[str], error: Exception) -> PartialLoadError:
    """Return the error for a partial load; some of ``keys`` may not be loaded."""
    in_place = set(loaded)
    remaining = tuple(key for key in keys if key not in in_place)
    return PartialLoadError(
        f"{checkpoint} is only partly loaded: {len(loaded)} keys are loaded, {len(remaining)} may not be: {error}",
        loaded,
        remaining,
    )


def _target_of(api: ModelApi, checkpoint: Checkpoint, name: str | None, target: Any, *, strict: bool) -> Target:
    if hasattr(target, "named_parameters"):
        return module_target(api, checkpoint, name, target, strict=strict)
    if name is not None and hasattr(target, "param_groups") and hasattr(target, "load_state_dict"):
        return OptimizerTarget(api, checkpoint, name, target)
    hint = "pass an optimizer in a dict, under its component's name" if name is None else "use load() for other values"
    raise InvalidRequest(f"load_into() needs a module or an optimizer, not a {type(target).__name__}; {hint}")


def _prefixed(report: Report, name: str | None) -> Report:
    """Return the report with the names that the keys have in the whole checkpoint."""
    if not name:
        return report
    return replace(
        report,
        matched_keys=long(report.matched_keys, name),
        missing_keys=long(report.missing_keys, name),
        unexpected_keys=long(report.unexpected_keys, name),
        mismatched_keys=tuple(Mismatch(f"{name}.{m.key}", m.have, m.want) for m in report.mismatched_keys),
        cast_keys=long(report.cast_keys, name),
        skipped_keys=long(report.skipped_keys, name),
    )


def long(keys: Sequence[str], name: str | None) -> tuple[str, ...]:
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
        prefix=", ".join(dict.fromkeys(each.prefix for each in reports if each.prefix)) or None,
        near=tuple(dict.fromkeys(hint for each in reports for hint in each.near)),
    )


def _matched(reports: Sequence[Report]) -> tuple[str, ...]:
    return tuple(key for each in reports for key in each.matched_keys)
