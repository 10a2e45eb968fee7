"""The record of when tokens were last used: rare writes, so that requests stay reads."""

import asyncio
import logging
import time
from datetime import UTC, datetime

from anyio import CapacityLimiter, to_thread

from ..catalog import Catalog
from ..catalog.tokens import USES_APART, note_uses
from ..errors import StateroomError
from ..values.token import Token

FIRST_AFTER = 1.0
"""Seconds from a use to its record, unless others were recorded in the last SPACING seconds."""

SPACING = 10.0
"""Fewest seconds between two transactions of one process."""

_log = logging.getLogger("stateroom.access")


class LastUses:
    """The uses that a process has not recorded yet. A use is noted only if the last recorded one is USES_APART ago, by
    whichever process, so a token that is always in use costs one row a minute. Lost in a crash: a minute.

    Create it on the event loop.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._thread = CapacityLimiter(1)
        self._waiting: dict[str, datetime] = {}
        self._recorded: dict[str, datetime] = {}  # what the catalog's copy of the tokens may not show yet
        self._writing: asyncio.Task[None] | None = None
        self._wrote_at = float("-inf")

    def note(self, token: Token) -> None:
        """Note that ``token`` is in use."""
        now = datetime.now(UTC)
        if token.id in self._waiting or any(
            at is not None and now - at < USES_APART for at in (token.last_used_at, self._recorded.get(token.id))
        ):
            return
        self._waiting[token.id] = now
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_later())

    def close(self) -> None:
        """Record what is left. Blocks."""
        if self._waiting:
            self._write(self._taken())

    def _taken(self) -> dict[str, datetime]:
        uses, self._waiting = self._waiting, {}
        now = datetime.now(UTC)
        self._recorded = {id_: at for id_, at in self._recorded.items() if now - at < USES_APART} | uses
        return uses

    def _write(self, uses: dict[str, datetime]) -> None:
        try:
            with self._catalog.write_own_rows() as w:
                note_uses(w, uses)
        except StateroomError as error:
            _log.warning("the last use of %s tokens was not recorded: %s", len(uses), error)

    async def _write_later(self) -> None:
        while self._waiting:
            await asyncio.sleep(max(FIRST_AFTER, self._wrote_at + SPACING - time.monotonic()))
            self._wrote_at = time.monotonic()
            await to_thread.run_sync(self._write, self._taken(), limiter=self._thread)
