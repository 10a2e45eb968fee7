"""Namespaces: what they hold, and how much they may hold."""

from dataclasses import dataclass

from .retention import Rules


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace. A quota is None if there is no limit.

    ``logical_bytes`` is the size of all checkpoints together; ``stored_bytes`` counts each blob once, also one that
    only the trash needs or that waits for the sweep. ``retention`` are the rules of its models that have none.
    """

    name: str
    quota_bytes: int | None
    quota_checkpoints: int | None
    models: int
    checkpoints: int
    logical_bytes: int
    stored_bytes: int
    retention: Rules | None = None
