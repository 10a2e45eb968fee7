"""Names of files, as frameworks use them, for checkpoints.

A file is the checkpoint in the slot of its name, in the run that its folder names: ``namespace/name/RUN/FILE``. Writing
a file again replaces the checkpoint, once the new one is stored. ``namespace/name@REF`` is the file of the checkpoint
that a ref means; if that is a folder, ``namespace/name@REF/PATH`` is one of its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .._checkpoint import Checkpoint
from .._client import Client
from .._errors import CheckpointNotFound, InvalidRequest, ModelNotFound
from .._model import Model

PROTOCOL = "stateroom"
SCHEME = f"{PROTOCOL}://"


@dataclass(frozen=True)
class Name:
    """A name below ``stateroom://``: ``model`` and either a ``ref``, perhaps with a ``path`` in its folder, or the
    ``run`` and ``slot`` of a file. Without both, the name is a folder's.
    """

    model: str
    ref: str | None = None
    path: str | None = None
    run: str | None = None
    slot: str | None = None

    def model_of(self, client: Client) -> Model:
        return client.model(self.model, run=self.run or "")

    @property
    def below(self) -> str:
        """The path of a file or a folder below the model; empty for the model itself."""
        return "/".join(filter(None, (self.run, self.slot)))

    def folders(self) -> Iterator[tuple[Name, str]]:
        """Yield the names of the folders that the file may lie in, and its path in each, the innermost first."""
        *parts, path = self.below.split("/")
        while parts:
            yield Name(self.model, run="/".join(parts[:-1]) or None, slot=parts[-1]), path
            path = f"{parts.pop()}/{path}"

    def find(self, client: Client) -> Checkpoint | None:
        """Return the checkpoint, None if there is none."""
        model = self.model_of(client)
        if self.ref is None:
            return None if self.slot is None else in_slot(model, self.slot)
        try:
            return model.checkpoint(self.ref)
        except (ModelNotFound, CheckpointNotFound):
            return None


def parse(path: str) -> Name:
    """Parse a name with or without the scheme. Raises InvalidRequest for one that names no model, or is no text."""
    if "\0" in path or not _is_unicode(path):
        raise InvalidRequest(f"{path!r} is no name: it must be Unicode text without NUL characters")
    parts = path.removeprefix(SCHEME).strip("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise InvalidRequest(
            f"{path!r} names no model; use {SCHEME}NAMESPACE/NAME/RUN/FILE or {SCHEME}NAMESPACE/NAME@REF"
        )
    model, at, ref = "/".join(parts[:2]).partition("@")
    if not at:
        return Name(model, run="/".join(parts[2:-1]) or None, slot=parts[-1] if len(parts) > 2 else None)
    if not ref:
        raise InvalidRequest(f"{path!r} has no ref after the @, as {SCHEME}{model}@latest has")
    return Name(model, ref, path="/".join(parts[2:]) or None)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_slot(model: Model, slot: str) -> Checkpoint | None:
    """Return the checkpoint in a slot of the model's run, None if there is none."""
    try:
        return next((each for each in model.checkpoints(where={"slot": slot}) if each.run == model.run), None)
    except ModelNotFound:
        return None
