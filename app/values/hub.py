"""Commits of the Hugging Face Hub's protocol, beside the checkpoints that they become."""

from collections.abc import Mapping
from dataclasses import dataclass


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
