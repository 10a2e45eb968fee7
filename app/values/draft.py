"""Drafts: what a repository of the Hugging Face Hub holds before its first checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from .checkpoint import ModelName
from .hub import commit_id


@dataclass(frozen=True, slots=True)
class DraftFile:
    """A file of a draft: its ``content``, or the ``sha256`` of an object that was sent ahead."""

    size: int
    content: bytes | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """The files of a model that has no checkpoint yet: nothing among them has tensors."""

    model: ModelName
    created_at: datetime
    files: Mapping[str, DraftFile]

    @property
    def commit(self) -> str:
        """The 40 hexadecimal digits that name this state of the draft. The last 16, its version, are zeros."""
        files = {path: [file.sha256, (file.content or b"").hex()] for path, file in sorted(self.files.items())}
        text = json.dumps([str(self.model), self.created_at.isoformat(), files])
        return commit_id(text, 0)
