"""How much of a file the catalog shows: every listing reads all of that. The manifest has the rest."""

from collections.abc import Iterable, Sequence

from ..values.checkpoint import Checkpoint
from ..values.manifest import Component

MAX_COMPONENTS = 256
MAX_NAMES = 256
MAX_TEXT = 16 * 1024
"""Characters of all components' names, and of all names of one kind."""

MORE = "..."
"""Stands at the end of names that are not all shown."""


def shown_components(components: Sequence[Component]) -> tuple[Component, ...]:
    """The first components, in the file's order."""
    shown: list[Component] = []
    text = 0
    for component in components[:MAX_COMPONENTS]:
        text += sum(len(str(part)) + 1 for part in component.path)
        if text > MAX_TEXT:
            break
        shown.append(component)
    return tuple(shown)


def shown_names(names: Iterable[str]) -> tuple[str, ...]:
    """The first names, and MORE if there are more."""
    shown: list[str] = []
    text = 0
    for name in names:
        text += len(name)
        if len(shown) == MAX_NAMES or text > MAX_TEXT:
            return (*shown, MORE)
        shown.append(name)
    return tuple(shown)


def weight(checkpoint: Checkpoint) -> int:
    """About how many bytes of JSON a checkpoint is."""
    numbers = sum(len(name) + 30 for name in checkpoint.metrics)
    texts = sum(len(name) + len(text) + 8 for name, text in checkpoint.tags.items())
    # A component's name is shown twice, the second time in a URL that is no shorter than all else of it.
    components = sum(300 + 4 * len(component.name) for component in checkpoint.components)
    names = sum(len(name) + 4 for name in (*checkpoint.devices, *checkpoint.unsafe_globals))
    return 1000 + numbers + texts + components + names
