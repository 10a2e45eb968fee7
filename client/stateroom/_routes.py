"""The server's routes for one model, each as a function of values. What is done with the tensors is no matter here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from ._cache import Cache
from ._cached import receiver_of
from ._checkpoint import Checkpoint, ModelSummary, TensorInfo, What, checkpoint_of, model_of, tensor_of
from ._errors import InvalidRequest, understood
from ._fetch import Fetching, find_layout, warn_of_left_out
from ._http import Http, json_of
from ._into_file import fetch_into, is_worthwhile
from ._negotiated import NegotiatedUpload
from ._progress import ProgressOption, progress_of
from ._query import Params, Ref, Selection, link_params, model_path, optional, ref_text
from ._receive import Tally
from ._report import Report, report_of
from ._split import Split
from ._transfer import Body, FileSink, check_if_zip, check_records, fetch

if TYPE_CHECKING:
    from ._outbox import Outbox

TENSORS_A_PAGE = 10_000


class Routes:
    """``run`` scopes every ref but a Checkpoint, which is one already."""

    def __init__(
        self,
        http: Http,
        model: str,
        run: str | None,
        *,
        progress: ProgressOption,
        verify: bool,
        connections: int = 4,
        cache: Cache | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self._http = http
        self._path = model_path(model)
        self._progress = progress
        self._connections = connections
        self._cache = cache
        self.outbox = outbox
        self.model = model
        self.run = run
        self.verify = verify

    def in_background(self) -> Routes:
        """For a thread, which draws no bar into what others print unless it was asked for."""
        other = copy(self)
        if self._progress is None:
            other._progress = False  # noqa: SLF001  it is one of these
        return other

    def checkpoint(self, ref: Ref) -> Checkpoint:
        return checkpoint_of(self._http.json("GET", self._at(ref), self._scope(ref))[0], self.link)

    def checkpoints(self, params: Params) -> Iterator[Checkpoint]:
        pages = self._http.pages(f"{self._path}/checkpoints", [*optional(run=self.run), *params])
        return (checkpoint_of(item, self.link) for item in pages)

    def upload(self, file: IO[bytes], params: Params, *, label: str, key: str) -> Checkpoint:
        """Raises DigestMismatch if the server stored other bytes than were sent. ``key`` makes it safe to send again,
        whatever became of the first try: it is stored once.
        """
        body = Body(file, label=label, progress=progress_of(self._progress), verify=self.verify)
        length = optional(**{"Content-Length": None if body.size is None else str(body.size)})
        headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": key, **dict(length)}
        response = self._http.send(
            "POST",
            f"{self._path}/checkpoints",
            params,
            headers=headers,
            content=body,
            replayable=body.size is not None,
            safe=True,
            size=body.size or 0,
        )
        checkpoint = checkpoint_of(json_of(response), self.link)
        if checkpoint.digest is not None:
            body.check(checkpoint.digest)
        return checkpoint

    def upload_split(self, split: Split, params: Params, *, original: bool, label: str, key: str) -> Checkpoint | None:
        """In parts, and of those only what the server doesn't have. ``original``: it is a file, to be kept as it is.
        None where it has to be uploaded in one piece, under the same key.
        """
        upload = NegotiatedUpload(
            self._http,
            self._path.replace("/v1/models/", "/v1/uploads/", 1),
            split,
            connections=self._connections,
            label=label,
            progress=progress_of(self._progress),
        )
        found = upload.run(params, original=original, key=key)
        return None if found is None else checkpoint_of(found, self.link)

    def update(self, ref: Ref, changes: Mapping[str, Any]) -> Checkpoint:
        answer, _ = self._http.json("PATCH", self._at(ref), self._scope(ref), body=changes, safe=True)
        return checkpoint_of(answer, self.link)

    def set_best(self, by: str) -> ModelSummary:
        return model_of(self._http.json("PATCH", self._path, [], body={"best": by}, safe=True)[0])

    def delete(self, ref: Ref) -> None:
        if self._scope(ref):
            self.checkpoint(ref)  # raises for another run's: DELETE takes a number, and no run
        self._http.json("DELETE", self._at(ref))

    def delete_model(self) -> None:
        self._http.json("DELETE", self._path)

    def link(
        self, checkpoint: Checkpoint, what: What, expires: int, map_location: Any, fields: Mapping[str, Any]
    ) -> str:
        """An absolute URL that needs no token; ``fields`` are those of a Selection."""
        params = link_params(what, expires, map_location, fields)
        answer, _ = self._http.json("POST", f"{self._at(checkpoint)}/links/{what}", params, safe=True)
        with understood("a link"):
            return self._http.url + self._http.path_of(answer["url"])

    def tensors(self, checkpoint: Checkpoint, component: str | None) -> Iterator[TensorInfo]:
        params = [*optional(component=component), ("limit", str(TENSORS_A_PAGE))]
        return map(tensor_of, self._http.pages(f"{self._at(checkpoint)}/tensors", params))

    def param_groups(self, checkpoint: Checkpoint, component: str) -> list[Mapping[str, Any]]:
        """An optimizer's, as it was saved."""
        one = [("component", component), ("limit", "1")]
        answer, _ = self._http.json("GET", f"{self._at(checkpoint)}/tensors", one)
        with understood("a component"):
            groups: list[Mapping[str, Any]] | None = answer["components"][0]["param_groups"]
        if groups is None:
            raise InvalidRequest(f"{component} of {checkpoint} is no optimizer's state_dict")
        return groups

    def match(self, ref: Ref, selection: Selection, target: Mapping[str, Any]) -> tuple[Report, str | None]:
        """What of the selection fits the target, ``{key: {"shape": [...], "dtype": "float32"}}``; and the path of a
        download of just that, None where nothing fits.
        """
        answer, headers = self._http.json(
            "POST",
            f"{self._at(ref)}/warmstart",
            self._scope(ref),
            body={**selection.body(), "device": "cpu", "target": target},
            safe=True,
        )
        with understood("a report"):
            download = answer["download"]
            report = report_of(headers["Stateroom-Checkpoint"], answer)
            return report, None if download is None else self._http.path_of(download)

    def state_dict_fetching(
        self, ref: Ref, selection: Selection, device: str | None, *, label: str, derived: bool, in_place: bool
    ) -> Fetching | None:
        """One component, to be fetched in parallel; None without an index of it. ``in_place`` goes past the cache."""
        params = [*self._scope(ref), *selection.params(), *optional(device=device)]
        path = f"{self._at(ref)}/state_dict"
        fetching = self._fetching(path, params, label=label, derived=derived, in_place=in_place)
        if fetching is not None and fetching.left_out:
            warn_of_left_out(fetching.left_out, label, is_zip=True, stacklevel=5)
        return fetching

    def matched_fetching(self, download: str, *, label: str) -> Fetching | None:
        """A download that a match named, to be fetched in parallel."""
        address = urlsplit(download)
        return self._fetching(
            address.path.rpartition("/")[0], parse_qsl(address.query), label=label, derived=False, in_place=True
        )

    def file_fetching(self, checkpoint: Checkpoint, device: str | None, *, derived: bool) -> Fetching | None:
        """The whole checkpoint."""
        params = optional(device=device, weights_only="false" if checkpoint.unsafe_globals else None)
        fetching = self._fetching(f"{self._at(checkpoint)}/file", params, label=str(checkpoint), derived=derived)
        if fetching is not None and checkpoint.unsafe_globals:
            return fetching.looked_at()
        return fetching

    def _fetching(
        self, path: str, params: Params, *, label: str, derived: bool | None = False, in_place: bool = False
    ) -> Fetching | None:
        """``derived`` is None for what has nothing derived."""
        asked = [] if derived is None else [("derived", "true" if derived else "false")]
        found = find_layout(self._http, f"{path}/index", [*params, *asked])
        if found is None:
            return None
        layout, left_out = found
        tally = Tally(label, layout.size, progress_of(self._progress))
        receiver = receiver_of(
            self._http,
            layout,
            connections=self._connections,
            verify=self.verify,
            tally=tally,
            cache=None if in_place else self._cache,
        )
        return Fetching(layout, receiver, left_out)

    @contextmanager
    def state_dict(self, ref: Ref, selection: Selection, device: str | None, *, label: str) -> Iterator[IO[bytes]]:
        """One component as a torch file; gone with the context."""
        params = [*self._scope(ref), *selection.params(), *optional(device=device)]
        with self._fetched(f"{self._at(ref)}/state_dict", params, label=label) as file:
            yield file

    def state_dict_into(
        self, file: IO[bytes], checkpoint: Checkpoint, selection: Selection, device: str | None
    ) -> None:
        params = [*selection.params(), *optional(device=device)]
        path = f"{self._at(checkpoint)}/state_dict"
        is_zip = selection.format == "pt"
        if is_worthwhile(checkpoint.bytes):
            # A safetensors file has no checksums, so that what is cast in it needs digests.
            coming = self._fetching(path, params, label=str(checkpoint), derived=not is_zip)
            if coming is not None:
                self._fetch_parts(file, coming, is_zip=is_zip)
                if coming.left_out:
                    warn_of_left_out(coming.left_out, str(checkpoint), is_zip=is_zip, stacklevel=4)
                return
        self._fetch_checked(file, path, params, label=str(checkpoint), stacklevel=4, is_zip=is_zip)

    @contextmanager
    def matched(self, download: str, *, label: str) -> Iterator[IO[bytes]]:
        """What a match said to download, as a torch file."""
        with self._fetched(download, [], label=label) as file:
            yield file

    @contextmanager
    def file(self, checkpoint: Checkpoint, device: str | None) -> Iterator[IO[bytes]]:
        """The whole checkpoint."""
        with tempfile.TemporaryFile(prefix="stateroom-") as file:
            self.file_into(file, checkpoint, device)
            yield file

    def file_into(self, file: IO[bytes], checkpoint: Checkpoint, device: str | None) -> None:
        if is_worthwhile(checkpoint.bytes):
            coming = self.file_fetching(checkpoint, device, derived=False)
            if coming is not None:
                self._fetch_parts(file, coming, is_zip=True)
                return
        params = optional(device=device, weights_only="false" if checkpoint.unsafe_globals else None)
        self._fetch(f"{self._at(checkpoint)}/file", params, FileSink(file, verify=False), label=str(checkpoint))
        if self.verify:
            check_records(file)

    def original_into(self, file: IO[bytes], checkpoint: Checkpoint) -> None:
        """The uploaded file, byte for byte."""
        path, label = f"{self._at(checkpoint)}/original", str(checkpoint)
        if is_worthwhile(checkpoint.bytes):
            coming = self._fetching(path, [], label=label, derived=None)
            if coming is not None:
                self._fetch_parts(file, coming, is_zip=False)
                return
        sink = FileSink(file, verify=self.verify)
        self._fetch(path, [], sink, label=label)
        if checkpoint.digest is not None:
            sink.check(checkpoint.digest, checkpoint.bytes)
        elif self.verify:
            check_if_zip(file)

    def _fetch_parts(self, file: IO[bytes], coming: Fetching, *, is_zip: bool) -> None:
        if not fetch_into(file, coming, verify=self.verify) and self.verify and is_zip:
            check_records(file)

    @contextmanager
    def _fetched(self, path: str, params: Params, *, label: str) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryFile(prefix="stateroom-") as file:
            self._fetch_checked(file, path, params, label=label, stacklevel=8)  # past two context managers
            yield file

    def _fetch_checked(
        self, file: IO[bytes], path: str, params: Params, *, label: str, stacklevel: int, is_zip: bool = True
    ) -> None:
        """A component as a file: a torch file ``is_zip``, and has checksums. ``stacklevel``, seen from here, is where
        the user's call stands.
        """
        headers = self._fetch(path, params, FileSink(file, verify=False), label=label)
        if self.verify and is_zip:
            check_records(file)
        if left_out := headers.get("Stateroom-Left-Out"):
            warn_of_left_out(unquote(left_out), label, is_zip=is_zip, stacklevel=stacklevel + 1)

    def _fetch(self, path: str, params: Params, sink: FileSink, *, label: str) -> httpx.Headers:
        return fetch(self._http, path, params, sink, label=label, progress=progress_of(self._progress))

    def _at(self, ref: Ref) -> str:
        return f"{self._path}/checkpoints/{ref_text(ref, self.model)}"

    def _scope(self, ref: Ref) -> Params:
        return [] if isinstance(ref, Checkpoint) else optional(run=self.run)
