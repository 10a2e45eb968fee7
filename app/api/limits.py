"""How long a client may take over what."""

from asyncio import Transport
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

_TOO_SLOW = "stateroom.too_slow"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for a whole head, without a byte of a body, and without a byte of an answer being taken; and connections
    at once in this process (None: any number).
    """

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    send_seconds: float = 60.0
    connections: int | None = None

    @property
    def tick(self) -> float:
        return min(1.0, self.head_seconds / 4, self.body_seconds / 4, self.send_seconds / 4)


def was_too_slow(scope: Mapping[str, Any]) -> bool:
    """Whether the connection of this request was cut because its body stopped coming."""
    return bool(scope.get("state", {}).get(_TOO_SLOW))


def note_too_slow(scope: Mapping[str, Any]) -> None:
    scope["state"][_TOO_SLOW] = True


class PatientFlow(FlowControl):
    """Knows since when the application has been waiting for more of a body."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        super().__init__(transport)
        self._clock = clock
        self.wanted = 0.0

    def resume_reading(self) -> None:
        self.wanted = self._clock()
        super().resume_reading()
