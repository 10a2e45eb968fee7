"""The requests about one model, and the parsing of their JSON answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ._checkpoint import (
    Checkpoint,
    ModelSummary,
    checkpoint_of,
    model_of,
)
from ._errors import InvalidRequest, understood
from ._files import FileInfo, file_of
from ._history import HistoryEntry, history_entry_of
from ._http.last_answers import is_recalled
from ._http.session import Http, json_of
from ._inside import Diff, Stats, diff_of, stats_of
from ._lineage import Lineage, lineage_of
from ._parsing import sha256_in, time_of
from ._progress import Progress, ProgressOption, progress_of
from ._query import Ref, Selection, link_params, listed, model_path, optional, ref_text
from ._report import Report, report_of
from ._retention import UNCHANGED, RetentionPreview, given_rules, preview_of
from ._tensor_info import TensorInfo, tensor_of
from ._types import Params, Patterns, What

if TYPE_CHECKING:
    from ._download.disk_cache import Cache
    from ._http.retry import RetryPolicy
    from ._upload.outbox import Outbox

TENSORS_A_PAGE = 10_000
FILES_A_PAGE = 1_000
HISTORY_A_PAGE = 1_000
STATS_A_PAGE = 200


@dataclass(frozen=True)
class Transfers:
    """Settings of a client's transfers: progress, verification, number of ``connections``, cache and outbox."""

    progress: ProgressOption = None
    verify: bool = True
    connections: int = 4
    cache: Cache | None = None
    outbox: Outbox | None = None

    def bar(self) -> Progress | None:
        """Return the progress callback of one transfer."""
        return progress_of(self.progress)


@dataclass(frozen=True)
class ModelApi:
    """The HTTP API of one model. ``run`` scopes every ref except a Checkpoint, which is already one version."""

    http: Http
    model: str
    run: str | None
    transfers: Transfers

    def __post_init__(self) -> None:
        model_path(self.model)  # raises InvalidRequest

    def in_background(self) -> ModelApi:
        """Return the API for a background thread, which draws a progress bar only if one was asked for."""
        if self.transfers.progress is not None:
            return self
        return replace(self, transfers=replace(self.transfers, progress=False))

    @property
    def path(self) -> str:
        return model_path(self.model)

    def at(self, ref: Ref) -> str:
        """The path of a checkpoint."""
        return f"{self.path}/checkpoints/{ref_text(ref, self.model)}"

    def ref(self, ref: Ref) -> str:
        """A ref as text in a JSON body."""
        return unquote(ref_text(ref, self.model))

    def scope(self, ref: Ref) -> Params:
        return [] if isinstance(ref, Checkpoint) else optional(run=self.run)

    def read(self, answer: Any) -> Checkpoint:
        """Parse a checkpoint, which makes its URLs through this API."""
        return checkpoint_of(answer, self)

    def checkpoint(self, ref: Ref) -> Checkpoint:
        return self.checkpoint_now(ref)[0]

    def checkpoint_now(self, ref: Ref) -> tuple[Checkpoint, str | None]:
        """Return the checkpoint and the ETag of its description."""
        answer = self.http.look_up("GET", self.at(ref), self.scope(ref))
        checkpoint = checkpoint_of(json_of(answer), self, offline=is_recalled(answer))
        return checkpoint, answer.headers.get("ETag")

    def checkpoint_unless(
        self, etag: str | None, ref: Ref, wait: int, retry: RetryPolicy
    ) -> tuple[Checkpoint, str | None] | None:
        """Return the checkpoint and the ETag of its description; None if that is ``etag`` for ``wait`` seconds more."""
        found = self.http.json_unless(etag, self.at(ref), self.scope(ref), wait, retry)
        return None if found is None else (self.read(found[0]), found[1])

    def checkpoints(self, params: Params) -> Iterator[Checkpoint]:
        return map(self.read, self.http.pages(f"{self.path}/checkpoints", [*optional(run=self.run), *params]))

    def update(self, ref: Ref, changes: Mapping[str, Any]) -> Checkpoint:
        return self.read(self.http.json("PATCH", self.at(ref), self.scope(ref), body=changes, safe=True)[0])

    def set_best(self, by: str) -> ModelSummary:
        return model_of(self.http.json("PATCH", self.path, [], body={"best": by}, safe=True)[0])

    def delete(self, ref: Ref, *, purge: bool) -> datetime | None:
        """Return until when the checkpoint can be restored, None if it was purged at once."""
        if self.scope(ref) and not purge:
            self.checkpoint(ref)  # raises for another run's checkpoint: DELETE takes no run
        answer = self.http.send("DELETE", self.at(ref), optional(purge="true" if purge else None))
        until = answer.headers.get("Stateroom-Purged-At")
        with understood("a time"):
            return None if until is None else time_of(until)

    def restore(self, ref: Ref) -> Checkpoint:
        return self.read(self.http.json("POST", f"{self.at(ref)}/restore", safe=True)[0])

    def pin(self, ref: Ref, reason: str | None) -> Checkpoint:
        path = f"{self.at(ref)}/pin"
        return self.read(self.http.json("PUT", path, self.scope(ref), body={"reason": reason}, safe=True)[0])

    def unpin(self, ref: Ref) -> None:
        self.http.send("DELETE", f"{self.at(ref)}/pin", self.scope(ref), safe=True)

    def retention(self) -> Mapping[str, Any] | None:
        return _rules_in(self.http.json("GET", self.path)[0])

    def set_retention(self, rules: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        return _rules_in(self.http.json("PATCH", self.path, body={"retention": rules}, safe=True)[0])

    def preview_retention(self, rules: Any) -> RetentionPreview:
        body = {} if rules is UNCHANGED else {"retention": rules}
        return preview_of(self.http.json("POST", f"{self.path}/retention/preview", body=body, safe=True)[0])

    def history(self) -> Iterator[HistoryEntry]:
        params = [*optional(run=self.run), ("limit", str(HISTORY_A_PAGE))]
        return map(history_entry_of, self.http.pages(f"{self.path}/history", params))

    def delete_model(self) -> None:
        self.http.json("DELETE", self.path)

    def link(
        self, checkpoint: Checkpoint, what: What, expires: int, map_location: Any, fields: Mapping[str, Any]
    ) -> str:
        """An absolute URL that needs no token; ``fields`` are those of a Selection."""
        params = link_params(what, expires, map_location, fields)
        answer, _ = self.http.json("POST", f"{self.at(checkpoint)}/links/{what}", params, safe=True)
        with understood("a link"):
            return self.http.url + self.http.path_of(answer["url"])

    def files(self, checkpoint: Checkpoint) -> list[FileInfo]:
        return list(map(file_of, self.http.pages(f"{self.at(checkpoint)}/files", [("limit", str(FILES_A_PAGE))])))

    def sha256(self, checkpoint: Checkpoint) -> str:
        """Return the SHA-256 of the uploaded file, in hex, which may take the server the time to read it."""
        # One byte and no HEAD: a refusal of HEAD has no body to say why.
        headers = {"Want-Repr-Digest": "sha-256=1", "Range": "bytes=0-0"}
        path = f"{self.at(checkpoint)}/original"
        answer = self.http.send("GET", path, headers=headers, safe=True, size=checkpoint.bytes)
        with understood("a SHA-256"):
            return sha256_in(answer.headers["Repr-Digest"])

    def lineage(self, checkpoint: Checkpoint) -> Lineage:
        return lineage_of(self.http.json("GET", f"{self.at(checkpoint)}/lineage")[0])

    def elsewhere(self, model: str) -> ModelApi:
        """Return the API of another model, with all its runs."""
        return replace(self, model=model, run=None)

    def merge(self, body: Mapping[str, Any], params: Params, *, key: str, size: int) -> Checkpoint:
        """Merge checkpoints of ``size`` bytes in all."""
        headers = {"Idempotency-Key": key}
        answer = self.http.send("POST", f"{self.path}/merge", params, headers=headers, json=body, safe=True, size=size)
        return self.read(json_of(answer))

    def tensors(self, checkpoint: Checkpoint, component: str | None) -> Iterator[TensorInfo]:
        params = [*optional(component=component), ("limit", str(TENSORS_A_PAGE))]
        return map(tensor_of, self.http.pages(f"{self.at(checkpoint)}/tensors", params))

    def stats(self, checkpoint: Checkpoint, component: str | None, include: Patterns) -> Stats:
        params = [*optional(component=component), *(("include", pattern) for pattern in listed(include))]
        params.append(("limit", str(STATS_A_PAGE)))
        return stats_of(checkpoint, self.http.pages(f"{self.at(checkpoint)}/stats", params))

    def diff(self, base: Checkpoint, other: str, component: str | None, *, numeric: bool) -> Diff:
        """Compare with the checkpoint ``other``, ``namespace/name@ref``."""
        params = [*optional(component=component, numeric="true" if numeric else None)]
        params.append(("limit", str(TENSORS_A_PAGE)))
        path = f"{self.at(base)}/diff/{quote(other, safe='@')}"
        return diff_of(str(base), other, self.http.pages(path, params))

    def param_groups(self, checkpoint: Checkpoint, component: str) -> list[Mapping[str, Any]]:
        """The param_groups of an optimizer, as they were saved."""
        one = [("component", component), ("limit", "1")]
        answer = json_of(self.http.look_up("GET", f"{self.at(checkpoint)}/tensors", one))
        with understood("a component"):
            groups: list[Mapping[str, Any]] | None = answer["components"][0]["param_groups"]
        if groups is None:
            raise InvalidRequest(f"{component} of {checkpoint} is not the state_dict of an optimizer")
        return groups

    def match(self, ref: Ref, selection: Selection, target: Mapping[str, Any]) -> tuple[Report, str | None]:
        """Match a selection with a target, ``{key: {"shape": [...], "dtype": "float32"}}``. Return a report, and the
        path of a download of only the tensors that fit, None if none does.
        """
        body = {**selection.body(), "device": "cpu", "target": target}
        response = self.http.look_up("POST", f"{self.at(ref)}/warmstart", self.scope(ref), json=body)
        answer = json_of(response)
        with understood("a report"):
            download = answer["download"]
            report = report_of(response.headers["Stateroom-Checkpoint"], answer)
            return report, None if download is None else self.http.path_of(download)


@understood("a model")
def _rules_in(answer: Any) -> Mapping[str, Any] | None:
    return given_rules(answer["retention"])
