"""Output of rules of retention, and of what they would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal

from .._printable import printable
from .._retention import RetentionPreview
from .output import say, table

NO_OWN = "no rules of its own; those of its namespace hold, if there are any"
NONE = "no rules"


def rules_text(rules: Mapping[str, Any] | None, none: str) -> str:
    """Return the rules of retention in one line; ``none`` without any."""
    if rules is None:
        return none
    return "; ".join(_rule(name.replace("_", " "), value) for name, value in rules.items())


def _rule(name: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{name}: " + ", ".join(f"{best['count']} by {best['by']}" for best in value)
    if isinstance(value, Mapping):
        counts = ((unit.replace("_", " "), count) for unit, count in value.items() if count is not None)
        return f"{name}: " + ", ".join(f"{count} {unit}" for unit, count in counts)
    return f"{name}: {value}"


def say_preview(preview: RetentionPreview) -> None:
    """Print what rules would do, in numbers, and then each checkpoint."""
    say(
        f"{len(preview.trashed)} to the trash, which frees {decimal(preview.trash_bytes)} once it is purged; "
        f"{len(preview.thinned)} without their optimizers' {decimal(preview.thinned_bytes)}; {len(preview.kept)} stay"
    )
    for warning in preview.warnings:
        say(printable(warning))
    thinned = set(preview.thinned)
    fates = {version: f"to the trash ({reason})" for version, reason in preview.trashed.items()}
    for version, keepers in preview.kept.items():
        why = f" ({', '.join(keepers)})" if keepers else ""
        fates[version] = f"stays{why}{', without its optimizers' if version in thinned else ''}"
    table(["VERSION", ""], [[str(version), fates[version]] for version in sorted(fates, reverse=True)], ["VERSION"])
