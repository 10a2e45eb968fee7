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


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document, named by its path in the repository, in order."""
    return [Block(*found) for found in FENCE.findall((ROOT / document).read_text())]
