"""An outbox for saves while the server is away: they are kept in a spool, and sent before the next save."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import cast

from .._checkpoint import Checkpoint, SpooledCheckpoint
from .._errors import QuotaExceeded, ServerError, ServerUnavailable, StateroomError, StorageFull, Unauthorized
from .._http.session import Http
from .._printable import one_line, printable
from .._types import Params
from .._warn import warn
from .spool import Label, Spool, Waiting, now_text

AWAY = (ServerError, StorageFull)
"""Errors of the server, rather than of the checkpoint that was sent."""


class Outbox:
    """The outbox of one client. ``post`` sends a waiting file."""

    def __init__(self, spool: Spool, http: Http, post: Callable[[Waiting], Checkpoint]) -> None:
        self._spool = spool
        self._http = http
        self._post = post

    def send(
        self,
        model: str,
        params: Params,
        key: str,
        directly: Callable[[], Checkpoint],
        pieces: Callable[[], Iterable[memoryview]],
    ) -> Checkpoint:
        """Send all waiting saves, so that versions are in the order of the saves, and return the result of
        ``directly``; or if the server is away, spool the save and return a SpooledCheckpoint. While saves wait, one
        request tests whether the server is ready.
        """
        why: StateroomError | None = None
        try:
            if self._spool.waiting(self._http.url):
                self._send_what_waits(model)
            return directly()
        except AWAY as error:
            why = error
        label = Label(self._http.url, model, key, now_text(), dict(params))
        try:
            kept = self._spool.add(pieces(), label)
        except OSError as failure:
            why.detail += f"; and it could not be written to {printable(self._spool.folder)}: {printable(failure)}"
            why.args = (why.detail,)
            raise why from None
        return spooled(kept, one_line(why))

    def send_all(self) -> list[Checkpoint]:
        """Send all waiting saves, whichever server they were meant for. Raises the error of a server that is away, and
        Unauthorized or QuotaExceeded if it takes none of a model, after all others are sent.
        """
        if not self._spool.waiting():
            return []
        with self._spool.sending():
            sent, barred = self._send_each(None)
        if barred:
            raise next(iter(barred.values()))
        return sent

    def _send_what_waits(self, model: str) -> None:
        """Send the saves that wait. Raises one of AWAY, and Unauthorized or QuotaExceeded if it is for this model."""
        with self._spool.sending():
            if not self._http.is_ready():
                raise ServerUnavailable(
                    f"the server at {self._http.url} is still unavailable, and other saves are waiting"
                )
            _, barred = self._send_each(self._http.url)
        if model in barred:
            raise barred[model]

    def _send_each(self, server: str | None) -> tuple[list[Checkpoint], dict[str, StateroomError]]:
        """Return the stored checkpoints, and the error for each model that the token may not write, or whose
        namespace has no room.
        """
        sent: list[Checkpoint] = []
        barred: dict[str, StateroomError] = {}
        for each in self._spool.waiting(server):
            if each.label.model in barred:
                continue
            try:
                sent.append(self._post(each))
            except (Unauthorized, QuotaExceeded) as error:
                barred[each.label.model] = error
            except AWAY:
                raise
            except StateroomError as error:
                self._set_aside(each, error)
            except OSError as error:
                text = f"the waiting save {printable(each.file)} cannot be read: {printable(error)}"
                warn(text)
            else:
                self._spool.remove(each)
        return sent, barred

    def _set_aside(self, refused: Waiting, error: StateroomError) -> None:
        reason = {"error": type(error).__name__, "status": error.status, "code": error.code, "detail": error.detail}
        aside = self._spool.set_aside(refused, reason)
        text = f"the server refused a waiting save of {printable(refused.label.model)}, which is kept in "
        warn(f"{text}{printable(aside)}: {one_line(error)}")


def spooled(kept: Waiting, why: str) -> SpooledCheckpoint:
    fields = kept.label.fields
    return SpooledCheckpoint(
        model=kept.label.model,
        version=cast("int", None),  # None until the server assigns one
        run=fields.get("run"),
        epoch=int(fields["epoch"]) if "epoch" in fields else None,
        step=int(fields["step"]) if "step" in fields else None,
        loss=float(fields["loss"]) if "loss" in fields else None,
        format="torch_zip",
        bytes=kept.file.stat().st_size,
        new_bytes=0,
        digest=None,
        sha256=None,
        created_at=datetime.fromisoformat(kept.label.created_at),
        metrics={name[7:]: float(value) for name, value in fields.items() if name.startswith("metric.")},
        tags={name[4:]: value for name, value in fields.items() if name.startswith("tag.")},
        parent=fields.get("parent"),
        warm_started_from=fields.get("warm_started_from"),
        path=kept.file,
        why=why,
    )


def spooled_text(kept: SpooledCheckpoint) -> str:
    """Return the warning of a spooled save."""
    return (
        f"a save of {printable(kept.model)} is not on the server yet: it waits in {printable(kept.path)}, and is sent "
        f"before the next save that reaches the server, or by send_spooled() ({kept.why})"
    )
