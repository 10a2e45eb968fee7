"""Completion of names in a shell. It is silent and brief: nobody who presses Tab wants an error or a long wait."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from .._client import Client
from .._errors import StateroomError

MOST = 200
SECONDS = 2.0


def models(incomplete: str) -> list[str]:
    """Return the names of the models at STATEROOM_URL that begin so."""
    with suppress(StateroomError, OSError), Client(timeout=SECONDS, retries=0, progress=False) as client:
        return [model.name for model in islice(client.models(), MOST) if model.name.startswith(incomplete)]
    return []
