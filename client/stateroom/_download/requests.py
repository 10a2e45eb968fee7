"""Downloads of one model: by their index and over several connections, or as one body."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._errors import ServerError, UnexpectedAnswer, understood
from .._inside import TensorForm
from .._query import Ref, Selection, TensorPart, optional
from .._types import Params
from .cached_receiver import receiver_of
from .index import Fetching, Index, find_layout, warn_of_left_out
from .layout import Layout
from .receiver import Tally
from .to_file import fetch_into, is_worthwhile
from .to_folder import fetch_folder
from .whole_file import FileSink, check_if_zip, check_records, fetch


def find_state_dict(
    api: ModelApi, ref: Ref, selection: Selection, device: str | None, *, label: str, derived: bool, in_place: bool
) -> Fetching | None:
    """Find the index of one component, to fetch it in parallel; None without one. ``in_place`` bypasses the cache,
    except one to which the client falls back.
    """
    params = [*api.scope(ref), *selection.params(), *optional(device=device)]
    fetching = _find(api, f"{api.at(ref)}/state_dict", params, label=label, derived=derived, in_place=in_place)
    if fetching is not None and fetching.left_out:
        warn_of_left_out(fetching.left_out, label, is_zip=True)
    return fetching


def find_upload(api: ModelApi, checkpoint: Checkpoint) -> Fetching | None:
    """Find the index of the file that ``fetch_original_into`` writes, or if there is none, of the whole checkpoint."""
    path = f"{api.at(checkpoint)}/original"
    found = _find(api, path, [], label=str(checkpoint), derived=None, in_place=True)
    return found or find_file(api, checkpoint, None, derived=False)


def find_path(api: ModelApi, checkpoint: Checkpoint, path: str) -> Fetching:
    """Find one file of a folder, to fetch parts of it. Raises NotFound."""
    address = f"{api.at(checkpoint)}/files/{quote(path)}"
    headers = api.http.send("HEAD", address, safe=True).headers
    with understood("the head of a file"):
        size, etag = int(headers["Content-Length"]), headers["ETag"].strip('"')
    layout = Layout(address, size, etag, None, None, (), "little")
    return _fetching(api, Index(layout, None, offline=False, tensor=None), str(checkpoint), in_place=True)


def find_component(api: ModelApi, checkpoint: Checkpoint, selection: Selection) -> Fetching | None:
    """Find the index of a component's file, to fetch parts of it; None if the server has none."""
    path = f"{api.at(checkpoint)}/state_dict"
    return _find(api, path, selection.params(), label=str(checkpoint), derived=False, in_place=True)


def find_tensor(api: ModelApi, ref: Ref, part: TensorPart, format: str, *, label: str) -> Fetching:  # noqa: A002  the server's word
    """Find the index of the file of one tensor: ``raw``, or ``safetensors``. Raises TensorNotFound, SelectionError."""
    params = [*api.scope(ref), *part.params(), ("format", format)]
    fetching = _find(api, f"{api.at(ref)}/{part.path}", params, label=label, derived=api.transfers.verify)
    if fetching is None or fetching.tensor is None:
        raise ServerError(f"the server at {api.http.url} does not send single tensors; upgrade it, or use state_dict()")
    return fetching


def fetch_tensor_into(api: ModelApi, file: IO[bytes], checkpoint: Checkpoint, part: TensorPart) -> TensorForm | None:
    """Write a safetensors file of one tensor."""
    fetching = find_tensor(api, checkpoint, part, "safetensors", label=str(checkpoint))
    _fetch_parts(api, file, fetching, is_zip=False)
    return fetching.tensor


def find_matched(api: ModelApi, download: str, *, label: str) -> Fetching | None:
    """Find the index of the download that a match named, to fetch it in parallel."""
    address = urlsplit(download)
    path = address.path.rpartition("/")[0]
    return _find(api, path, parse_qsl(address.query), label=label, derived=False, in_place=True)


def find_file(api: ModelApi, checkpoint: Checkpoint, device: str | None, *, derived: bool) -> Fetching | None:
    """Find the index of the whole checkpoint, to fetch it in parallel."""
    params = _file_params(checkpoint, device)
    fetching = _find(api, f"{api.at(checkpoint)}/file", params, label=str(checkpoint), derived=derived)
    if fetching is not None and checkpoint.unsafe_globals:
        return fetching.looked_at()
    return fetching


@contextmanager
def fetched_state_dict(
    api: ModelApi, ref: Ref, selection: Selection, device: str | None, *, label: str
) -> Iterator[IO[bytes]]:
    """Fetch one component as a torch file, deleted when the context ends."""
    params = [*api.scope(ref), *selection.params(), *optional(device=device)]
    with _fetched(api, f"{api.at(ref)}/state_dict", params, label=label) as file:
        yield file


@contextmanager
def fetched_match(api: ModelApi, download: str, *, label: str) -> Iterator[IO[bytes]]:
    """Fetch the download that a match named as a torch file, deleted when the context ends."""
    with _fetched(api, download, [], label=label) as file:
        yield file


@contextmanager
def fetched_file(api: ModelApi, checkpoint: Checkpoint, device: str | None) -> Iterator[IO[bytes]]:
    """Fetch the whole checkpoint into a file, deleted when the context ends."""
    with tempfile.TemporaryFile(prefix="stateroom-") as file:
        fetch_file_into(api, file, checkpoint, device)
        yield file


def fetch_state_dict_into(
    api: ModelApi, file: IO[bytes], checkpoint: Checkpoint, selection: Selection, device: str | None
) -> None:
    params = [*selection.params(), *optional(device=device)]
    path = f"{api.at(checkpoint)}/state_dict"
    is_zip = selection.format == "pt"
    if api.http.falls_back or is_worthwhile(checkpoint.bytes):
        # A safetensors file has no checksums, so its cast tensors need digests.
        coming = _find(api, path, params, label=str(checkpoint), derived=not is_zip)
        if coming is not None:
            _fetch_parts(api, file, coming, is_zip=is_zip)
            if coming.left_out:
                warn_of_left_out(coming.left_out, str(checkpoint), is_zip=is_zip)
            return
    _fetch_checked(api, file, path, params, label=str(checkpoint), is_zip=is_zip)


def fetch_file_into(api: ModelApi, file: IO[bytes], checkpoint: Checkpoint, device: str | None) -> None:
    if api.http.falls_back or is_worthwhile(checkpoint.bytes):
        coming = find_file(api, checkpoint, device, derived=False)
        if coming is not None:
            _fetch_parts(api, file, coming, is_zip=True)
            return
    sink = FileSink(file, verify=False)
    _fetch(api, f"{api.at(checkpoint)}/file", _file_params(checkpoint, device), sink, label=str(checkpoint))
    if api.transfers.verify:
        check_records(file)


def fetch_original_into(api: ModelApi, file: IO[bytes], checkpoint: Checkpoint) -> None:
    """Write the uploaded file, byte for byte."""
    path, label = f"{api.at(checkpoint)}/original", str(checkpoint)
    if api.http.falls_back or is_worthwhile(checkpoint.bytes):
        coming = _find(api, path, [], label=label, derived=None)
        if coming is not None:
            _fetch_parts(api, file, coming, is_zip=False)
            return
    sink = FileSink(file, verify=api.transfers.verify)
    _fetch(api, path, [], sink, label=label)
    if checkpoint.digest is not None:
        sink.check(checkpoint.digest, checkpoint.bytes)
    elif api.transfers.verify:
        check_if_zip(file)


def fetch_folder_into(api: ModelApi, folder: Path, checkpoint: Checkpoint) -> None:
    """Write all files of an uploaded folder, byte for byte, into an empty folder."""
    coming = _find(api, f"{api.at(checkpoint)}/original", [], label=str(checkpoint), derived=None)
    if coming is None:
        raise UnexpectedAnswer(f"{checkpoint} is a folder, but the server does not tell where its files lie")
    fetch_folder(folder, coming, verify=api.transfers.verify)


def _find(
    api: ModelApi, path: str, params: Params, *, label: str, derived: bool | None, in_place: bool = False
) -> Fetching | None:
    """Find the index at ``path``. ``derived`` is None for a file without derived bytes."""
    asked = [] if derived is None else [("derived", "true" if derived else "false")]
    found = find_layout(api.http, f"{path}/index", [*params, *asked], verifies=api.transfers.verify)
    return None if found is None else _fetching(api, found, label, in_place=in_place)


def _fetching(api: ModelApi, found: Index, label: str, *, in_place: bool) -> Fetching:
    falls_back = api.http.falls_back
    receiver = receiver_of(
        api.http,
        found.layout,
        connections=api.transfers.connections,
        verify=api.transfers.verify,
        tally=Tally(label, found.layout.size, api.transfers.bar()),
        cache=None if in_place and not falls_back else api.transfers.cache,
        keeps_all=falls_back,
        offline=found.offline,
    )
    return Fetching(found.layout, receiver, found.left_out, found.tensor)


def _fetch_parts(api: ModelApi, file: IO[bytes], coming: Fetching, *, is_zip: bool) -> None:
    verify = api.transfers.verify
    if not fetch_into(file, coming, verify=verify) and verify and is_zip:
        check_records(file)


@contextmanager
def _fetched(api: ModelApi, path: str, params: Params, *, label: str) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile(prefix="stateroom-") as file:
        _fetch_checked(api, file, path, params, label=label)
        yield file


def _fetch_checked(
    api: ModelApi, file: IO[bytes], path: str, params: Params, *, label: str, is_zip: bool = True
) -> None:
    """Fetch a component into a file: with ``is_zip`` a torch file, which has checksums."""
    headers = _fetch(api, path, params, FileSink(file, verify=False), label=label)
    if api.transfers.verify and is_zip:
        check_records(file)
    if left_out := headers.get("Stateroom-Left-Out"):
        warn_of_left_out(unquote(left_out), label, is_zip=is_zip)


def _fetch(api: ModelApi, path: str, params: Params, sink: FileSink, *, label: str) -> httpx.Headers:
    return fetch(api.http, path, params, sink, label=label, progress=api.transfers.bar())


def _file_params(checkpoint: Checkpoint, device: str | None) -> Params:
    return optional(device=device, weights_only="false" if checkpoint.unsafe_globals else None)
