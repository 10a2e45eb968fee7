"""Bodies of the hub's answers, as its clients expect them."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ...deliver.files import StoredPath
from ...errors import NotFound
from ...values.checkpoint import Checkpoint, ModelName
from ...values.folder import folders_of
from ...values.hub import HubCommit
from .commits import MAIN, commit_of

Json = dict[str, Any]


def date(at: datetime) -> str:
    """Write a time in UTC as clients parse it."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def repository(
    model: ModelName,
    commit: str | None,
    at: datetime | None,
    files: Iterable[StoredPath] = (),
    sha256s: Mapping[str, str] | None = None,
    *,
    blobs: bool = False,
) -> Json:
    """Describe a model at a commit, None for one that has none. With ``blobs``, describe its files, too."""
    name = str(model)
    shown: Json = {
        "_id": name,
        "id": name,
        "modelId": name,
        "author": model.namespace,
        "sha": commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [
            {"rfilename": file.path} | (_blob(file, commit or "", (sha256s or {}).get(file.path)) if blobs else {})
            for file in files
        ],
    }
    if at is not None:
        shown |= {"lastModified": date(at)}
    return shown


def _blob(file: StoredPath, commit: str, sha256: str | None) -> Json:
    lfs = None if sha256 is None else {"sha256": sha256, "size": file.size, "pointerSize": 134}
    return {"size": file.size, "blobId": _oid(file, commit), "lfs": lfs}


def tree(files: Iterable[StoredPath], commit: str, folder: str, *, recursive: bool) -> list[Json]:
    """List the entries below ``folder``, all or only those right below it. Raises NotFound without any."""
    inside = f"{folder}/" if folder else ""
    below = [file for file in files if file.path.startswith(inside)]
    if not below and folder:
        raise NotFound(f"there is no folder {folder[:200]!r}", code="file-not-found")
    found: dict[str, Json] = {}
    for file in below:
        between = [inside + path for path in folders_of(file.path[len(inside) :])]
        for path in between if recursive else between[:1]:
            found.setdefault(path, _folder(path))
        if recursive or not between:
            found[file.path] = _file(file, commit)
    return list(found.values())


def entries(files: Iterable[StoredPath], commit: str, paths: Iterable[str]) -> list[Json]:
    """List the files and folders among ``paths``. Those that are not there are left out."""
    found: dict[str, Json] = {}
    for file in files:
        found |= {path: _folder(path) for path in folders_of(file.path)} | {file.path: _file(file, commit)}
    return [found[path] for path in dict.fromkeys(path.strip("/") for path in paths) if path in found]


def refs(latest: Checkpoint, aliases: Iterable[tuple[str, Checkpoint]]) -> Json:
    """List the branch and the tags of a model: its latest checkpoint and its aliases."""
    return {
        "branches": [_ref(MAIN, "heads", latest)],
        "tags": [_ref(name, "tags", checkpoint) for name, checkpoint in aliases],
        "converts": [],
    }


def commit_view(checkpoint: Checkpoint, commit: HubCommit | None) -> Json:
    """Describe a checkpoint as a commit, by the text of the ``commit`` that made it, if one did."""
    numbers = {"epoch": checkpoint.epoch, "step": checkpoint.step, "loss": checkpoint.loss}
    said = ", ".join(f"{name} {value}" for name, value in numbers.items() if value is not None)
    title, message = f"Version {checkpoint.version}", said
    if commit is not None:
        title, message = commit.title or title, commit.message
    return {
        "id": commit_of(checkpoint),
        "title": title,
        "message": message,
        "date": date(checkpoint.created_at),
        "authors": [],
    }


def _ref(name: str, kind: str, checkpoint: Checkpoint) -> Json:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit_of(checkpoint)}


def _oid(file: StoredPath, commit: str) -> str:
    """Return 40 hexadecimal digits that stand for a file's bytes. They are not git's, for which all would be read."""
    return hashlib.sha1(f"{file.digest or commit + file.path}".encode(), usedforsecurity=False).hexdigest()


def _file(file: StoredPath, commit: str) -> Json:
    return {"type": "file", "path": file.path, "size": file.size, "oid": _oid(file, commit)}


def _folder(path: str) -> Json:
    return {"type": "directory", "path": path, "size": 0, "oid": ""}
