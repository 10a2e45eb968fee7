"""Reports of a sweep and of a check, as text and as JSON. Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .fsck import Checked, Finding
from .sweep import Swept

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size_as_text(nbytes: int) -> str:
    """Format a size: ``0 bytes``, ``1.5 MiB``."""
    size, unit = float(nbytes), 0
    while abs(size) >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{nbytes} bytes"


def swept_as_json(swept: Swept, *, dry_run: bool) -> dict[str, Any]:
    return {"dry_run": dry_run, **asdict(swept)}


def swept_as_text(swept: Swept, *, dry_run: bool) -> str:
    lines = [f"{'Would free' if dry_run else 'Freed'} {size_as_text(swept.freed_bytes)}"]
    counted = (
        (swept.removed_checkpoints, "checkpoints moved to the trash by rules"),
        (swept.thinned_checkpoints, "checkpoints without their optimizers' bytes, by rules"),
        (swept.purged_checkpoints, "checkpoints purged from the trash"),
        (swept.blobs, "blobs that no checkpoint refers to"),
        (swept.packs, "packs"),
        (swept.spooled_uploads, "interrupted uploads in the spool"),
        (swept.partial_uploads, "abandoned negotiated uploads"),
        (swept.unfinished_checkpoints, "checkpoints with an interrupted commit"),
    )
    lines += [f"  {count:,} {what}" for count, what in counted if count]
    if swept.compacted_packs:
        would = "would be" if dry_run else "were"
        lines.append(
            f"  {swept.compacted_packs:,} of the packs are mostly unused; "
            f"the {size_as_text(swept.copied_bytes)} in use {would} copied"
        )
    if swept.waits_for_backup:
        lines.append("a backup is running: the bytes of packs are freed by the first sweep after it")
    lines += [
        f"pack {name} is mostly unused, but is kept because it is damaged: see fsck --read-data"
        for name in swept.damaged
    ]
    return "\n".join(lines)


def finding_as_text(finding: Finding) -> str:
    return f"{finding.kind}: {finding.what}: {finding.detail}"


def checked_as_json(checked: Checked, findings: Sequence[Finding]) -> dict[str, Any]:
    return {"findings": [asdict(finding) for finding in findings], **asdict(checked)}


def checked_as_text(checked: Checked, found: int) -> str:
    looked = f"{checked.packs:,} packs, {checked.blobs:,} blobs, {checked.checkpoints:,} checkpoints"
    if checked.read_bytes:
        looked += f", {size_as_text(checked.read_bytes)} read"
    lines = [f"blob-healed: {healed}: replaced by an upload" for healed in checked.healed]
    return "\n".join(
        [*lines, f"{looked}: " + (f"{found:,} problem{'s' if found > 1 else ''} found" if found else "all is well")]
    )
