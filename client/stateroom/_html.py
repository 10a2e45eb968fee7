"""Tables for notebooks. All text is escaped: a checkpoint's keys are whatever its maker chose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ._printable import printable

MOST_ROWS = 100


def html_text(value: object) -> str:
    return escape(printable(value))


def html_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, more: int = 0) -> str:
    """Return a table under a title. ``more`` rows are left out. An empty header is left out, too."""
    lines = [f"<div><strong>{html_text(title)}</strong><table>"]
    if header:
        lines.append(f"<thead><tr>{''.join(f'<th>{html_text(name)}</th>' for name in header)}</tr></thead>")
    lines.append("<tbody>")
    lines += (f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    lines.append("</tbody></table>")
    if more:
        lines.append(f"<p>... and {more:,} more</p>")
    return "".join([*lines, "</div>"])


class Drawing(str):
    """Markup of our own, which is not escaped."""

    __slots__ = ()


def _cell(value: object) -> str:
    return f"<td>{value if isinstance(value, Drawing) else html_text(value)}</td>"


def bars(counts: Sequence[int]) -> Drawing:
    """Draw a histogram."""
    highest = max(counts, default=0) or 1
    width, height = 3, 24
    drawn = "".join(
        f'<rect x="{width * number}" y="{height - tall}" width="{width - 1}" height="{tall}"/>'
        for number, tall in enumerate(round(height * count / highest) for count in counts)
    )
    return Drawing(f'<svg width="{width * len(counts)}" height="{height}" fill="currentColor">{drawn}</svg>')
