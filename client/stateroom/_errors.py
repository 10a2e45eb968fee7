"""All errors that the client raises on purpose, and the error for each answer of the server.

StateroomError
├── InvalidRequest (ValueError)      a request that cannot be understood
│   └── SelectionError               a selection that cannot be served
│       ├── NoKeysMatched
│       ├── ComponentAmbiguous       say which component
│       └── UnknownComponent
├── Unauthorized                     no token, a wrong one, or one that may not do this
├── NotFound                         not found; a wrong address too
│   ├── ModelNotFound
│   ├── CheckpointNotFound
│   ├── TensorNotFound
│   └── Gone                         was there once: purged, expired, or its optimizers' bytes were removed
│       └── EventsExpired            events that were not read have been deleted; .after
├── RefusedCheckpoint                an upload that Stateroom will not store
│   ├── NotACheckpoint               not a file that torch.save writes
│   ├── HostileCheckpoint            breaks a rule that every honest file keeps
│   ├── NoTensors                    a checkpoint without a tensor
│   ├── BadFolder                    a folder whose files do not fit together, or whose paths cannot be kept
│   └── ShardedTensor                one rank's shard of a distributed tensor
├── UnsafeGlobals                    only weights_only=False reads this checkpoint as it was saved
├── Conflict                         contradicts what is stored
│   └── PreconditionFailed           it is not, or no longer, as expected
├── DigestMismatch                   the bytes that arrived are not those that were sent
├── StateDictMismatch (RuntimeError) keys or shapes that don't fit the target; nothing was loaded
├── PartialLoadError                 failed after a target was touched; .loaded, .remaining
├── Superseded                       a background save that was replaced by a newer one
├── TorchRequired (ImportError)
├── StorageFull                      the server's disk is full
│   └── QuotaExceeded                the namespace may hold no more
└── ServerError                      the server failed
    ├── ServerUnavailable            not reached, or overloaded, after all retries
    └── UnexpectedAnswer             an answer that no Stateroom server gives

StateroomWarning (UserWarning)       saved, but part of it will not load as expected; or a background save failed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from ._printable import printable, with_lines


class StateroomError(Exception):
    """The base of all errors raised on purpose.

    ``detail`` is for people. ``code`` (stable, machine-readable) and ``status`` are the server's, None for errors that
    the client found itself. ``rule`` and ``where`` are the rule that a refused checkpoint broke, and its place in the
    file; ``near`` lists existing names similar to a missing one.
    """

    code: str | None = None
    status: int | None = None
    rule: str | None = None
    where: str | None = None
    near: tuple[str, ...] = ()

    def __init__(self, detail: str) -> None:
        detail = with_lines(detail)
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(StateroomError, ValueError): ...


class SelectionError(InvalidRequest): ...


class NoKeysMatched(SelectionError): ...


class ComponentAmbiguous(SelectionError): ...


class UnknownComponent(SelectionError): ...


class Unauthorized(StateroomError): ...


class NotFound(StateroomError): ...


class ModelNotFound(NotFound): ...


class CheckpointNotFound(NotFound): ...


class TensorNotFound(NotFound): ...


class Gone(NotFound): ...


class EventsExpired(Gone):
    """Look at the present state, and go on with the events after the event ``after``, the oldest that can be read."""

    after: int = 0


class RefusedCheckpoint(StateroomError): ...


class NotACheckpoint(RefusedCheckpoint): ...


class HostileCheckpoint(RefusedCheckpoint): ...


class NoTensors(RefusedCheckpoint): ...


class BadFolder(RefusedCheckpoint): ...


class ShardedTensor(RefusedCheckpoint): ...


class UnsafeGlobals(StateroomError):
    """``globals`` are the names that ``weights_only=True`` does not load, if they are known."""

    def __init__(self, detail: str, globals: Sequence[str] = ()) -> None:  # noqa: A002  torch's word for them
        super().__init__(detail)
        self.globals = tuple(map(printable, globals))


class Conflict(StateroomError): ...


class PreconditionFailed(Conflict): ...


class DigestMismatch(StateroomError): ...


class StateDictMismatch(StateroomError, RuntimeError):
    """``load_state_dict(strict=True)`` would raise; found before anything was downloaded."""


class PartialLoadError(StateroomError):
    """``loaded`` lists the keys known to be loaded; ``remaining`` all others, some of which may be loaded."""

    def __init__(self, detail: str, loaded: Sequence[str] = (), remaining: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.loaded = tuple(loaded)
        self.remaining = tuple(remaining)


class Superseded(StateroomError): ...


class TorchRequired(StateroomError, ImportError): ...


class StorageFull(StateroomError): ...


class QuotaExceeded(StorageFull): ...


class ServerError(StateroomError): ...


class ServerUnavailable(ServerError): ...


class UnexpectedAnswer(ServerError):
    """An answer that makes no sense, contradicts itself, or names an address that is not the server's own."""


class StateroomWarning(UserWarning): ...


ERROR_OF_CODE: dict[str, type[StateroomError]] = {
    "model-not-found": ModelNotFound,
    "checkpoint-not-found": CheckpointNotFound,
    "unknown-tensor": TensorNotFound,
    "events-expired": EventsExpired,
    "not-a-checkpoint": NotACheckpoint,
    "hostile-checkpoint": HostileCheckpoint,
    "no-tensors": NoTensors,
    "bad-folder": BadFolder,
    "sharded-tensor": ShardedTensor,
    "refused-checkpoint": RefusedCheckpoint,
    "no-keys-matched": NoKeysMatched,
    "component-ambiguous": ComponentAmbiguous,
    "unknown-component": UnknownComponent,
    "component-empty": SelectionError,
    "tensor-ambiguous": ComponentAmbiguous,
    "not-one-tensor": SelectionError,
    "bad-slice": SelectionError,
    "unsafe-globals": UnsafeGlobals,
    "storage-full": StorageFull,
    "quota-exceeded": QuotaExceeded,
    "unauthorized": Unauthorized,
}

ERROR_OF_STATUS: dict[int, type[StateroomError]] = {
    400: InvalidRequest,
    408: ServerUnavailable,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: PreconditionFailed,
    429: ServerUnavailable,
    502: ServerUnavailable,
    503: ServerUnavailable,
    504: ServerUnavailable,
    507: StorageFull,
}


def error_of(response: httpx.Response) -> StateroomError:
    """Return the error for a 3xx, 4xx or 5xx answer, by its problem's ``code``, else by its status.

    The response's body must have been read.
    """
    status = response.status_code
    problem = _problem(response)
    code = _text(problem.get("code"))
    detail = problem.get("detail") or problem.get("title")
    if detail is None and response.has_redirect_location:
        detail = f"{response.request.url} redirects to {response.headers['Location']}; use that URL for the client"
    if detail is None:
        detail = f"{response.request.method} {response.request.url} failed with {status} {response.reason_phrase}"
    kind = ERROR_OF_CODE.get(code or "") or ERROR_OF_STATUS.get(status)
    if kind is None:
        kind = ServerError if status >= 500 else InvalidRequest
    error = kind(printable(detail))
    error.status = status
    error.code = code
    error.rule = _text(problem.get("rule"))
    error.where = _text(problem.get("where"))
    if isinstance(error, EventsExpired) and isinstance(problem.get("after"), int):
        error.after = problem["after"]
    near = problem.get("near")
    error.near = tuple(map(printable, near)) if isinstance(near, list) else ()
    return error


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Raise UnexpectedAnswer if the block finds wrong fields or values in an answer. Also a decorator, for a function
    that only reads an answer.
    """
    try:
        yield
    except StateroomError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        why = f"{type(error).__name__}: {printable(error)[:200]}"
        raise UnexpectedAnswer(f"the server's response is not {what} that this client can read ({why})") from None


def _text(value: object) -> str | None:
    return None if value is None else printable(value)


def _problem(response: httpx.Response) -> dict[str, Any]:
    """Return the answer's RFC 9457 problem; empty if there is none (a proxy's page, say)."""
    if "json" not in response.headers.get("Content-Type", ""):
        return {}
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
