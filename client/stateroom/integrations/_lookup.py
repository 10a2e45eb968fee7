"""Look-ups of files by their names below ``stateroom://``."""

from __future__ import annotations

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._client import Client
from .._download.requests import find_path, find_upload
from .._download.slices import ByteRanges
from .._errors import ModelNotFound, ServerError
from .._upload.loose import loose_files
from ._files import Name, parse
from ._open_files import Found, FoundFile

FOLDER = "folder"
"""The format of a checkpoint that is a folder."""

ANY = ""
"""A text that every slot is not less than."""


class Lookup:
    """Looks up the files of a server."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def found(self, path: str) -> Found:
        file = self.find(path)
        if file is None:
            raise FileNotFoundError(path)
        return file

    def find(self, path: str) -> Found | None:
        name = parse(path)
        checkpoint = name.find(self.client)
        if checkpoint is not None and checkpoint.format != FOLDER and name.path is None:
            return FoundFile(checkpoint)
        if checkpoint is not None:
            return _inside(checkpoint, name.path)  # None for the folder itself
        for folder, inner in name.folders():
            checkpoint = folder.find(self.client)
            if checkpoint is not None and checkpoint.format == FOLDER and (found := _inside(checkpoint, inner)):
                return found
        if name.slot is None:
            return None
        return next((each for each in loose_files(self.api(name), name.below) if each.path == name.below), None)

    def below(self, path: str) -> dict[str, Found | None]:
        """Return the files in a folder and in the folders below it, by their names. A folder of which the files were
        not looked up has a name with a slash at its end.
        """
        name = parse(path)
        files: dict[str, Found | None] = {}
        if name.ref is not None:
            checkpoint = name.find(self.client)
            if checkpoint is not None and checkpoint.format == FOLDER:
                files = {
                    f"{name.model}@{name.ref}/{each.path}": FoundFile(checkpoint, each) for each in checkpoint.files()
                }
        else:
            loose = loose_files(self.api(name), name.below)
            files |= {f"{name.model}/{each.path}": each for each in loose if each.path.rpartition("/")[0] == name.below}
            for key, each in self.slotted(name).items():
                if each.format != FOLDER:
                    files[key] = FoundFile(each)
                elif f"{path}/".startswith(f"{key}/"):
                    files |= {f"{key}/{file.path}": FoundFile(each, file) for file in each.files()}
                else:
                    files[f"{key}/"] = None
        return {key: file for key, file in files.items() if key.startswith(f"{path}/")}

    def slotted(self, name: Name) -> dict[str, Checkpoint]:
        """Return all checkpoints of a model that have slots, by their names."""
        try:
            found = list(self.client.model(name.model, run="").checkpoints(where={"slot.ge": ANY}))
        except ModelNotFound:
            return {}
        return {"/".join(filter(None, (each.model, each.run, each.slot))): each for each in found}

    def bytes_of(self, file: Found) -> ByteRanges | bytes:
        """Return a file's bytes: those of a loose file, or ranges to read."""
        if isinstance(file, FoundFile):
            return self.ranges(file)
        return file.read()

    def ranges(self, file: FoundFile) -> ByteRanges:
        model = self.client.model(file.checkpoint.model, run="")
        api = model._api.in_background()  # noqa: SLF001  one package
        if file.inside is not None:
            return ByteRanges(find_path(api, file.checkpoint, file.inside.path))
        fetching = find_upload(api, file.checkpoint)
        if fetching is None:
            raise ServerError(f"the server at {self.client.url} does not say where the bytes of a file lie; upgrade it")
        return ByteRanges(fetching)

    def api(self, name: Name) -> ModelApi:
        return name.model_of(self.client)._api.in_background()  # noqa: SLF001  one package


def _inside(checkpoint: Checkpoint, path: str | None) -> FoundFile | None:
    return next((FoundFile(checkpoint, each) for each in checkpoint.files() if each.path == path), None)
