"""Output of the command line: tables for people, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any

from rich.filesize import decimal

from .._alias import Alias, AliasChange
from .._checkpoint import Checkpoint, ModelSummary, Pin
from .._history import HistoryEntry
from .._namespace import Namespace
from .._printable import printable
from .._token import Token
from .curve import sparkline

ABSENT = "-"
AS_WIDE_AS_IT_GETS = 10_000  # columns, without a terminal


def say_json(document: Any) -> None:
    """Print a JSON document: dataclasses become objects of their fields, times ISO 8601."""
    sys.stdout.write(json.dumps(document, default=_plain, indent=2) + "\n")


def say_json_line(document: Any) -> None:
    """Print a JSON document in one line, at once."""
    sys.stdout.write(json.dumps(document, default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else asdict(value)


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def models_table(models: Iterable[ModelSummary]) -> None:
    rows = [[model.name, str(model.checkpoints), model.best, time_text(model.created_at)] for model in models]
    table(["MODEL", "CHECKPOINTS", "BEST", "CREATED"], rows, right=["CHECKPOINTS"])


def namespaces_table(namespaces: Iterable[Namespace]) -> None:
    rows = [
        [
            each.name,
            str(each.models),
            _of_quota(f"{each.checkpoints:,}", each.quota_checkpoints, "{:,}".format),
            _of_quota(decimal(each.stored_bytes), each.quota_bytes, decimal),
            decimal(each.logical_bytes),
        ]
        for each in namespaces
    ]
    header = ["NAMESPACE", "MODELS", "CHECKPOINTS", "STORED", "LOGICAL"]
    table(header, rows, right=header[1:])


def _of_quota(used: str, quota: int | None, shown: Callable[[int], str]) -> str:
    return used if quota is None else f"{used} of {shown(quota)}"


def tokens_table(tokens: Iterable[Token]) -> None:
    rows = [
        [
            each.name,
            each.id,
            each.scope,
            ABSENT if each.namespaces is None else ",".join(each.namespaces),
            time_text(each.created_at),
            _time(each.expires_at),
            _time(each.last_used_at),
            each.state,
        ]
        for each in tokens
    ]
    table(["NAME", "ID", "SCOPE", "NAMESPACES", "MADE", "EXPIRES", "LAST USED", "STATE"], rows)


def aliases_table(aliases: Iterable[Alias]) -> None:
    rows = [
        [
            each.name,
            str(each.version),
            number_text(each.previous_version),
            "yes" if each.protected else ABSENT,
            time_text(each.moved_at),
            each.moved_by or ABSENT,
            each.note or ABSENT,
        ]
        for each in aliases
    ]
    header = ["ALIAS", "VERSION", "BEFORE", "PROTECTED", "MOVED", "BY", "NOTE"]
    table(header, rows, right=["VERSION", "BEFORE"])


def alias_changes_table(changes: Iterable[AliasChange]) -> None:
    rows = [
        [
            str(each.revision),
            "removed" if each.version is None else str(each.version),
            number_text(each.previous_version),
            time_text(each.at),
            each.by or ABSENT,
            each.note or ABSENT,
        ]
        for each in changes
    ]
    table(["REVISION", "VERSION", "BEFORE", "AT", "BY", "NOTE"], rows, right=["REVISION", "VERSION", "BEFORE"])


def alias_text(alias: Alias) -> str:
    before = "" if alias.previous_version is None else f", before: {alias.previous_version}"
    protected = ", protected" if alias.protected else ""
    return f"{alias.name} is {alias.model}@{alias.version}{before}{protected}"


def checkpoints_table(checkpoints: Iterable[Checkpoint], *, trash: bool = False) -> None:
    rows = [
        [
            str(each.version),
            number_text(each.epoch),
            number_text(each.step),
            _loss(each),
            _metrics(each),
            each.run or ABSENT,
            decimal(each.bytes),
            time_text(each.created_at),
            *([_time(each.deleted_at), each.deleted_reason or ABSENT, _time(each.purged_at)] if trash else []),
        ]
        for each in checkpoints
    ]
    header = ["VERSION", "EPOCH", "STEP", "LOSS", "METRICS", "RUN", "SIZE", "CREATED"]
    header += ["DELETED", "WHY", "KEPT UNTIL"] if trash else []
    table(header, rows, right=["VERSION", "EPOCH", "STEP", "LOSS", "SIZE"])


def history_table(entries: Iterable[HistoryEntry]) -> None:
    rows = [
        [
            str(each.version),
            number_text(each.epoch),
            number_text(each.step),
            _loss(each),
            _metrics(each),
            each.run or ABSENT,
            time_text(each.created_at),
            each.state,
        ]
        for each in entries
    ]
    header = ["VERSION", "EPOCH", "STEP", "LOSS", "METRICS", "RUN", "CREATED", "STATE"]
    table(header, rows, right=["VERSION", "EPOCH", "STEP", "LOSS"])


def checkpoint_table(checkpoint: Checkpoint) -> None:
    facts = {
        "checkpoint": str(checkpoint),
        "run": checkpoint.run or ABSENT,
        "epoch": number_text(checkpoint.epoch),
        "step": number_text(checkpoint.step),
        "loss": _loss(checkpoint),
        "metrics": _metrics(checkpoint),
        "aliases": ", ".join(checkpoint.aliases) or ABSENT,
        "pin": _pin(checkpoint.pin),
        "tags": ", ".join(f"{name}={value}" for name, value in checkpoint.tags.items()) or ABSENT,
        "parent": checkpoint.parent or ABSENT,
        "warm-started from": checkpoint.warm_started_from or ABSENT,
        "merged from": ABSENT if checkpoint.merge is None else str(checkpoint.merge),
        "size": stored_text(checkpoint),
        "created": time_text(checkpoint.created_at),
        "format": checkpoint.format,
        "devices": ", ".join(checkpoint.devices) or ABSENT,
        "digest": checkpoint.digest or ABSENT,
        "sha256": checkpoint.sha256 or ABSENT,
    }
    if checkpoint.slot is not None:
        facts["slot"] = checkpoint.slot
    if checkpoint.expires_at is not None:
        facts["expires"] = time_text(checkpoint.expires_at)
    if checkpoint.thinned_at is not None:
        facts["thinned"] = f"{time_text(checkpoint.thinned_at)}: the optimizers' bytes are gone"
    if checkpoint.unsafe_globals:
        facts["unsafe"] = ", ".join(checkpoint.unsafe_globals)
    table(None, [[name, value] for name, value in facts.items()])
    say()
    rows = [[each.name or '""', each.kind, str(each.keys), decimal(each.bytes)] for each in checkpoint.components]
    table(["COMPONENT", "KIND", "KEYS", "SIZE"], rows, right=["KEYS", "SIZE"])


def loss_curves(checkpoints: Iterable[Checkpoint]) -> None:
    """Print the loss of each run as a curve, oldest first."""
    runs: dict[str | None, list[float]] = {}
    for each in sorted(checkpoints, key=lambda one: one.version):
        if each.loss is not None:
            runs.setdefault(each.run, []).append(each.loss)
    rows = [
        [f"loss{'' if run is None else f' of {run}'}", sparkline(losses), f"{losses[0]:g} to {losses[-1]:g}"]
        for run, losses in runs.items()
        if len(losses) > 1
    ]
    if rows:
        say()
        table(None, rows)


def table(header: Sequence[str] | None, rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print columns side by side; cells fold on a terminal that is too narrow, lines have any length elsewhere."""
    from rich.console import Console  # noqa: PLC0415  a fifth of the time that a command takes to start
    from rich.table import Table  # noqa: PLC0415  as above

    width = None if sys.stdout.isatty() else AS_WIDE_AS_IT_GETS
    drawn = Table(box=None, show_header=header is not None, pad_edge=False)
    for title in header or [""] * max(map(len, rows), default=0):
        drawn.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(printable, row))
    Console(width=width, markup=False, emoji=False, highlight=False).print(drawn)


def stored_text(checkpoint: Checkpoint) -> str:
    return f"{decimal(checkpoint.bytes)}, {decimal(checkpoint.new_bytes)} new"


def time_text(time: datetime) -> str:
    """Return the time to the minute, in this machine's time zone; on a terminal, how long ago it was."""
    if sys.stdout.isatty() and (since := ago(datetime.now(timezone.utc) - time)) is not None:
        return since
    return f"{time.astimezone():%Y-%m-%d %H:%M}"


def ago(past: timedelta) -> str | None:
    """Return a time that is over as people say it; None for one of more than 30 days, or one that is to come."""
    seconds = past.total_seconds()
    if seconds < -5:  # more than two clocks may differ
        return None
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return None if seconds > 30 * 86400 else f"{int(seconds // size)} {unit} ago"
    return "just now"


def _time(time: datetime | None) -> str:
    return ABSENT if time is None else time_text(time)


def _pin(pin: Pin | None) -> str:
    return ABSENT if pin is None else f"since {time_text(pin.at)}{f': {pin.reason}' if pin.reason else ''}"


def number_text(value: float | None) -> str:
    return ABSENT if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _loss(checkpoint: Checkpoint | HistoryEntry) -> str:
    return "not finite" if "loss" in checkpoint.nonfinite else number_text(checkpoint.loss)


def _metrics(checkpoint: Checkpoint | HistoryEntry) -> str:
    """Return the metrics as text. A stored metric that reads None is not finite."""
    shown = (
        f"{name}={'not finite' if value is None else number_text(value)}" for name, value in checkpoint.metrics.items()
    )
    return ", ".join(shown) or ABSENT
