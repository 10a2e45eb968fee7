"""Traces: what a request did and how long each step took. A seam: nothing here knows who records them.

The trace of a request is a context variable, like its actor: threads carry it along. Without one, a step costs nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, Protocol, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Facts: TypeAlias = Mapping[str, str | int | bool]


class Trace(Protocol):
    """The trace of one request. Thread-safe."""

    @property
    def id(self) -> str:
        """The trace's id in hexadecimal digits, by which the log refers to it."""

    def step(self, name: str, facts: Facts) -> AbstractContextManager[object]:
        """Record a step, which belongs to the step in which it begins."""

    def describe(self, name: str, facts: Facts, *, failed: bool) -> None:
        """Name the request, and add facts about it, before it ends."""


class Tracer(Protocol):
    """Whoever records traces."""

    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Trace]:
        """Record a request; it belongs to the trace that its headers name, if they do."""


_NOTHING = nullcontext()
_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def trace_with(trace: Trace) -> None:
    """Make ``trace`` that of this task from now on."""
    _current.set(trace)


def step(name: str, **facts: str | int | bool) -> AbstractContextManager[object]:
    """Record the block as a step of the current request, if it is traced. Facts are never secrets."""
    trace = _current.get()
    return _NOTHING if trace is None else trace.step(name, facts)


def as_step(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Record each call of a function as ``step`` does."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def recorded(*args: P.args, **kwargs: P.kwargs) -> T:
            with step(name):
                return function(*args, **kwargs)

        return recorded

    return decorate
