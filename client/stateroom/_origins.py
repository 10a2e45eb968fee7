"""The checkpoints that training began with, which the next save names by itself."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._errors import StateroomError
from ._query import Ref, origin_text
from ._types import Params

BY_ITSELF: Any = ...
"""The default of ``parent`` and ``warm_started_from``: name the checkpoint that was loaded since the last save."""

UNKNOWN_PARENT = "unknown-parent"
"""The code of the error for an origin that never existed."""

ORIGINS = PARENT, WARM_STARTED_FROM = "parent", "warm_started_from"


class Origins:
    """The names of the checkpoints that one Model has loaded to train on, until its next save takes them."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._loaded: dict[str, str] = {}

    def resumed(self, checkpoint: object) -> None:
        self._loaded[PARENT] = str(checkpoint)

    def warm_started(self, checkpoint: object) -> None:
        self._loaded[WARM_STARTED_FROM] = str(checkpoint)

    @contextmanager
    def taken(self, parent: Ref | None, warm_started_from: Ref | None) -> Iterator[Params]:
        """Take the origins for the save in the block, as query parameters; the next save does not have them, unless
        this one fails. Raises InvalidRequest for a text that names no checkpoint.
        """
        given = {PARENT: parent, WARM_STARTED_FROM: warm_started_from}
        loaded, self._loaded = self._loaded, {}
        try:
            named = {name: loaded.get(name) if ref is BY_ITSELF else ref for name, ref in given.items()}
            yield [(name, origin_text(name, ref, self._model)) for name, ref in named.items() if ref is not None]
        except BaseException as error:
            is_known = not _is_unknown(error)
            self._give_back({name: text for name, text in loaded.items() if is_known or given[name] is not BY_ITSELF})
            raise

    def follow(self, job: concurrent.futures.Future[Any], taken: Params) -> None:
        """Give back what a background save has taken, if it fails."""

        def ended(job: concurrent.futures.Future[Any]) -> None:
            # Not job.exception(), after which the client would take the error for reported.
            error = concurrent.futures.Future.exception(job)
            if error is not None and not _is_unknown(error):
                self._give_back(dict(taken))

        job.add_done_callback(ended)

    def _give_back(self, loaded: dict[str, str]) -> None:
        """Keep the origins for the next save, unless others have been loaded meanwhile."""
        self._loaded = {**loaded, **self._loaded}


def _is_unknown(error: BaseException) -> bool:
    """Return whether the server no longer knows an origin, as after a restore of an old backup: the next save must not
    fail for it, too.
    """
    return isinstance(error, StateroomError) and error.code == UNKNOWN_PARENT
