"""Retention: which checkpoints of a run stay. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from .checkpoint import RemovalReason
from .duration import format_duration, parse_duration


@dataclass(frozen=True, slots=True)
class KeepBest:
    """Keep the ``count`` best by ``min:NAME`` or ``max:NAME``, where NAME is ``loss`` or a metric."""

    by: str
    count: int = 1

    @property
    def metric(self) -> str:
        return self.by.partition(":")[2]

    @property
    def is_min(self) -> bool:
        return self.by.startswith("min:")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a model, which hold for each of its runs by itself. A checkpoint stays if any of them keeps it.

    ``keep_every_epochs`` keeps each epoch that it divides. ``thin_after`` is the number of newest checkpoints of a run
    that keep their optimizers' bytes. Without a rule that keeps, all stay.
    """

    keep_last: int | None = None
    keep_best: tuple[KeepBest, ...] = ()
    keep_every_epochs: int | None = None
    keep_every_steps: int | None = None
    keep_for: timedelta | None = None
    thin_after: int | None = None

    @property
    def removes(self) -> bool:
        """Tell whether there is a rule that keeps, so that what none keeps is removed."""
        every = self.keep_every_epochs, self.keep_every_steps
        return any(rule is not None for rule in (self.keep_last, self.keep_for, *every)) or bool(self.keep_best)

    @property
    def metrics(self) -> set[str]:
        """The names of metrics that a rule ranks by, ``loss`` too."""
        return {best.metric for best in self.keep_best}


KEEP_ALL = Rules()


def rules_to_json(rules: Rules) -> dict[str, Any]:
    """The rules as the API writes them; those that are not set are left out."""
    every = {"epochs": rules.keep_every_epochs, "steps": rules.keep_every_steps}
    document = {
        "keep_last": rules.keep_last,
        "keep_best": [{"by": best.by, "count": best.count} for best in rules.keep_best] or None,
        "keep_every": {unit: count for unit, count in every.items() if count is not None} or None,
        "keep_for": None if rules.keep_for is None else format_duration(rules.keep_for),
        "thin_after": None if rules.thin_after is None else {"keep_last": rules.thin_after},
    }
    return {name: value for name, value in document.items() if value is not None}


def rules_from_json(document: Mapping[str, Any]) -> Rules:
    """The rules of ``rules_to_json``."""
    every = document.get("keep_every", {})
    kept_for = document.get("keep_for")
    return Rules(
        keep_last=document.get("keep_last"),
        keep_best=tuple(KeepBest(best["by"], best["count"]) for best in document.get("keep_best", ())),
        keep_every_epochs=every.get("epochs"),
        keep_every_steps=every.get("steps"),
        keep_for=None if kept_for is None else parse_duration(kept_for),
        thin_after=document.get("thin_after", {}).get("keep_last"),
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint as the rules see it. ``values`` are its finite numbers of the rules' metrics. ``holders`` are the
    aliases and the pin that keep it whatever the rules say. ``optimizer_bytes`` is what thinning it would free.
    """

    version: int
    created_at: datetime
    run: str | None = None
    epoch: int | None = None
    step: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    holders: tuple[str, ...] = ()
    slot: str | None = None
    expires_at: datetime | None = None
    optimizer_bytes: int = 0


@dataclass(slots=True)
class Verdict:
    """The fate of each checkpoint: ``kept`` says by what, ``removed`` why, ``thinned`` are versions among the kept.

    ``unknown`` are pairs of a run and a metric that none of its checkpoints has: there nothing is removed.
    """

    kept: dict[int, tuple[str, ...]] = field(default_factory=dict)
    removed: dict[int, RemovalReason] = field(default_factory=dict)
    thinned: list[int] = field(default_factory=list)
    unknown: list[tuple[str | None, str]] = field(default_factory=list)


def judge(candidates: Iterable[Candidate], rules: Rules, now: datetime) -> Verdict:
    """Say what the rules, the slots and the times of expiry mean for all checkpoints of some runs at ``now``."""
    runs: defaultdict[str | None, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        runs[candidate.run].append(candidate)
    verdict = Verdict()
    for run in runs.values():
        _judge_run(sorted(run, key=lambda one: -one.version), rules, now, verdict)
    return verdict


def _judge_run(newest_first: Sequence[Candidate], rules: Rules, now: datetime, verdict: Verdict) -> None:
    reasons = {one.version: list(one.holders) for one in newest_first}
    ruled: list[Candidate] = []
    filled: set[str] = set()
    for one in newest_first:
        is_over = one.expires_at is not None and one.expires_at <= now
        if is_over and not one.holders:
            verdict.removed[one.version] = "expired"
        elif one.slot is None:
            ruled.append(one)
        elif one.slot not in filled:
            filled.add(one.slot)
            reasons[one.version].append(f"slot {one.slot}")
        elif not one.holders:
            verdict.removed[one.version] = "replaced"
    stays = next((one for one in newest_first if one.version not in verdict.removed), None)
    if stays is not None:
        reasons[stays.version].append("newest")
    unknown = rules.metrics - {name for one in ruled for name in one.values} if ruled else set()
    verdict.unknown += [(ruled[0].run, metric) for metric in sorted(unknown)]
    for rule, kept in _kept_by(ruled, rules, now):
        for one in kept:
            reasons[one.version].append(rule)
    for one in newest_first:
        if one.version in verdict.removed:
            continue
        if reasons[one.version] or not rules.removes or unknown:
            verdict.kept[one.version] = tuple(reasons[one.version])
        else:
            verdict.removed[one.version] = "retention"
    if rules.thin_after is not None:
        remaining = [one for one in ruled if one.version in verdict.kept]
        old = remaining[rules.thin_after :]
        verdict.thinned += [one.version for one in old if one.optimizer_bytes and not one.holders]


def _kept_by(
    newest_first: Sequence[Candidate], rules: Rules, now: datetime
) -> Iterable[tuple[str, Iterable[Candidate]]]:
    """Each rule, with the checkpoints that it keeps."""
    if rules.keep_last is not None:
        yield "keep_last", newest_first[: rules.keep_last]
    for best in rules.keep_best:
        ranked = [one for one in newest_first if best.metric in one.values]
        ranked.sort(key=lambda one: one.values[best.metric] * (1 if best.is_min else -1))  # stable: ties go to newest
        yield f"keep_best {best.by}", islice(ranked, best.count)
    for name, every in (("epoch", rules.keep_every_epochs), ("step", rules.keep_every_steps)):
        if every is not None:
            counts = ((one, getattr(one, name)) for one in newest_first)
            yield "keep_every", (one for one, count in counts if count is not None and count % every == 0)
    if rules.keep_for is not None:
        since = now - rules.keep_for
        yield "keep_for", (one for one in newest_first if one.created_at > since)
