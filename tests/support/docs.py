"""The code blocks of a document."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, and its text."""

    language: str
    text: str


def blocks(document: str, section: str | None = None) -> list[Block]:
    """Return the fenced blocks of a document, named by its path in the repository, or of one of its sections, in
    order.
    """
    text = (ROOT / document).read_text()
    if section is not None:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [Block(*found) for found in FENCE.findall(text)]


def python_of(document: str, section: str | None = None) -> str:
    """Return the Python code of a document, or of one of its sections."""
    return "".join(block.text for block in blocks(document, section) if block.language == "python")
