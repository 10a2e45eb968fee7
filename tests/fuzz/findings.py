"""Findings: each file, and beside it a description of the fault and how to reproduce it."""

import hashlib
import re
from pathlib import Path

from tests.fuzz.watch import Fault

KEPT_OF_A_KIND = 5


class Findings:
    """In a folder that several processes write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, fault: Fault, data: bytes) -> None:
        """Keeps the first few of each kind."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", fault.kind).strip("-")[:100]
        if len(list(self.folder.glob(f"{name}.*.file"))) >= KEPT_OF_A_KIND:
            return
        path = self.folder / f"{name}.{hashlib.sha1(data).hexdigest()[:12]}.file"
        path.with_suffix(".txt").write_text(f"{fault.kind}\n{reproduce(path)}\n\n{fault.detail}")
        path.write_bytes(data)

    def kinds(self) -> dict[str, Path]:
        """A file of each kind, the smallest."""
        found: dict[str, Path] = {}
        for path in sorted(self.folder.glob("*.file"), key=lambda path: path.stat().st_size):
            found.setdefault(path.name.partition(".")[0], path)
        return found


def reproduce(path: Path) -> str:
    return f"python -m tests.fuzz {path}"
