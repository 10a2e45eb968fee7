"""Rows of the table that ``make bench`` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.sample import Bar, Sample

Verdict = Literal["ok", "short", "info", "skipped"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row. ``question`` is the bar's number; ``what`` says what was measured, and is unique within the question.

    ``ours`` and ``peer`` are figures for people; ``measured`` is what is judged by the ``bar`` and compared with other
    runs. A row without a bar is only for information. ``why`` says why a row was skipped.
    """

    question: str
    what: str
    ours: str = ""
    peer: str = ""
    measured: Sample | None = None
    bar: Bar | None = None
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.why:
            return "skipped"
        if self.bar is None or self.measured is None:
            return "info"
        return "ok" if self.measured.meets(self.bar.limit) else "short"

    @property
    def bar_text(self) -> str:
        return "" if self.bar is None or self.measured is None else self.bar.text_for(self.measured)

    def to_json(self) -> dict[str, Any]:
        measured = self.measured
        return {
            "question": self.question,
            "what": self.what,
            "ours": self.ours,
            "peer": self.peer or self.why,
            "values": None if measured is None else list(measured.values),
            "better": None if measured is None else measured.better,
            "unit": None if measured is None else measured.unit,
            "bar": self.bar_text,
            "verdict": self.verdict,
        }


def sample_of(row: Mapping[str, Any]) -> Sample | None:
    """Return the sample of a row that was read from JSON."""
    return None if row["values"] is None else Sample(tuple(row["values"]), row["better"], row["unit"])


def skipped(question: str, what: str, why: str) -> Row:
    return Row(question, what, why=why)


def table(rows: Sequence[Row]) -> str:
    """The rows as text under a heading, in aligned columns."""
    heading = ("#", "what", "ours", "peer or limit", "measured (quartiles)", "bar", "")
    return aligned(
        [
            heading,
            *(
                (
                    row.question,
                    row.what,
                    row.ours,
                    row.peer or row.why,
                    "" if row.measured is None else row.measured.text,
                    row.bar_text,
                    row.verdict,
                )
                for row in rows
            ),
        ]
    )


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Lines of cells under the first line, a heading."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
