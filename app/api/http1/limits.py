"""Limits for slow clients."""

from asyncio import Transport
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

_WHY_CUT = "stateroom.why_cut"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a connection: seconds for a whole head, seconds without a byte of a body, seconds without a byte of a
    response being taken, and the least bytes a second of a body and a response in the long run; also the connections at
    once in this process (None: any number).
    """

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    send_seconds: float = 60.0
    least_rate: int = 1024
    connections: int | None = None

    @property
    def tick(self) -> float:
        return min(1.0, self.head_seconds / 4, self.body_seconds / 4, self.send_seconds / 4)


def why_cut(scope: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return code and detail of the problem that cut this request's connection while its body was arriving."""
    found: tuple[str, str] | None = scope.get("state", {}).get(_WHY_CUT)
    return found


def note_why_cut(scope: Mapping[str, Any], code: str, detail: str) -> None:
    scope["state"][_WHY_CUT] = (code, detail)


@dataclass(slots=True)
class Pace:
    """A token bucket that measures a transfer against ``rate`` bytes a second (0: no transfer is too slow).

    It starts with ``window`` seconds, loses one each second, gains one for ``rate`` bytes, and never holds more than
    ``window``: a transfer may pause, but not trickle for ever.
    """

    rate: int
    window: float
    _ahead: float = field(init=False)

    def __post_init__(self) -> None:
        self._ahead = self.window

    def keeps_up(self, count: int, seconds: float) -> bool:
        """Tell whether the transfer is still fast enough, after ``count`` more bytes in ``seconds``."""
        if not self.rate:
            return True
        self._ahead = min(self.window, self._ahead + count / self.rate - seconds)
        return self._ahead >= 0


class PatientFlow(FlowControl):
    """Flow control that knows since when the application has waited for more of a body."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        super().__init__(transport)
        self._clock = clock
        self.wanted = 0.0

    def resume_reading(self) -> None:
        self.wanted = self._clock()
        super().resume_reading()
