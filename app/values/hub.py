"""Commits of the Hugging Face Hub's protocol, beside the checkpoints that they become."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

HASHED = 24
"""Digits of a commit's id that are a hash. The other 16 are its version."""


def commit_id(text: str, version: int) -> str:
    """Return the 40 hexadecimal digits that name what ``text`` says of a version."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:HASHED] + f"{version:016x}"


@dataclass(frozen=True, slots=True)
class HubCommit:
    """The text of a commit, and the SHA-256 of each of its files that arrived with one, by path."""

    title: str
    message: str
    sha256s: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NewHubCommit:
    """A commit about to be made on version ``after``, which is 0 in a model without checkpoints."""

    after: int
    commit: HubCommit


@dataclass(frozen=True, slots=True)
class StagedObject:
    """A file that arrived ahead of its commit: ``size`` bytes, which are all of a pack."""

    size: int
    pack: str


@dataclass(frozen=True, slots=True)
class Xorb:
    """Chunks of files that a client of the hub sent in one session: ``size`` plain bytes, by their hash."""

    session: str
    hash: str
    size: int
    chunks: int


@dataclass(frozen=True, slots=True)
class KeptXorb:
    """A xorb that arrived: all of ``pack``. Behind its plain bytes are the positions after its chunks."""

    size: int
    chunks: int
    pack: str
