"""Events: records of changes, numbered in the order in which the changes became visible."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from .actor import Actor, actor
from .checkpoint import ModelName


class EventKind(StrEnum):
    """The kinds of events."""

    CHECKPOINT_CREATED = "checkpoint-created"
    CHECKPOINT_CHANGED = "checkpoint-changed"
    CHECKPOINT_TRASHED = "checkpoint-trashed"
    CHECKPOINT_RESTORED = "checkpoint-restored"
    CHECKPOINT_PURGED = "checkpoint-purged"
    CHECKPOINT_THINNED = "checkpoint-thinned"
    CHECKPOINT_NONFINITE = "checkpoint-nonfinite"
    CHECKPOINT_PINNED = "checkpoint-pinned"
    CHECKPOINT_UNPINNED = "checkpoint-unpinned"
    RETENTION_CHANGED = "retention-changed"
    ALIAS_MOVED = "alias-moved"
    ALIAS_CHANGED = "alias-changed"
    ALIAS_REMOVED = "alias-removed"
    MODEL_CHANGED = "model-changed"
    MODEL_DELETED = "model-deleted"
    QUOTA_CHANGED = "quota-changed"
    WEBHOOK_MADE = "webhook-made"
    WEBHOOK_REMOVED = "webhook-removed"
    BACKUP_RESTORED = "backup-restored"
    TOKEN_MADE = "token-made"  # noqa: S105 - no password
    TOKEN_REVOKED = "token-revoked"  # noqa: S105 - as above
    TOKEN_REFUSED = "token-refused"  # noqa: S105 - as above


Detail: TypeAlias = Mapping[str, str | int | float | bool | Sequence[str] | None]
"""A few facts about an event, as JSON holds them. Keep it short: a page of events has up to a thousand."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be written. ``model`` is None for one that concerns no model, such as a new token. ``actor``
    caused it: whoever acts now.
    """

    kind: EventKind
    model: ModelName | None = None
    version: int | None = None
    alias: str | None = None
    detail: Detail = field(default_factory=dict)
    actor: Actor = field(default_factory=actor)


@dataclass(frozen=True, slots=True)
class Event:
    """An event. Ids ascend, without gaps except before ``backup-restored``. ``kind`` is an EventKind, or one that a
    newer server wrote. ``by`` and ``address`` tell who caused it, None where nobody is known.
    """

    id: int
    kind: str
    model: ModelName | None
    version: int | None
    alias: str | None
    at: datetime
    by: str | None
    address: str | None
    detail: Detail


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The events that a reader wants: of one model, of one namespace, or all; of some ``kinds``, or all."""

    namespace: str | None = None
    name: str | None = None
    kinds: frozenset[EventKind] = frozenset()

    def matches(self, event: Event) -> bool:
        if self.kinds and event.kind not in self.kinds:
            return False
        if self.namespace is None:
            return True
        model = event.model
        return model is not None and model.namespace == self.namespace and self.name in {None, model.name}


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, oldest first. A reader goes on with the events after ``last``, which may have been no match."""

    items: tuple[Event, ...]
    last: int

    def cut(self, limit: int) -> "EventPage":
        """Return the first ``limit`` events."""
        if len(self.items) <= limit:
            return self
        return EventPage(self.items[:limit], self.items[limit - 1].id)
