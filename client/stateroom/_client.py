"""The client of one Stateroom server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from ._api import ModelApi, Transfers
from ._checkpoint import Checkpoint, ModelSummary, model_of
from ._download.disk_cache import Cache, cache_of
from ._errors import InvalidRequest
from ._event import After, Event, Events, Kinds
from ._http.retry import seconds_of
from ._http.session import Http
from ._log import LOG
from ._model import Model
from ._namespace import AS_IT_IS, Namespace, Namespaces
from ._origins import ORIGINS, UNKNOWN_PARENT
from ._printable import printable
from ._progress import ProgressOption
from ._retention import UNCHANGED, KeepBest, rules_of
from ._token import Expires, Token, Tokens
from ._upload.background import SaveQueue
from ._upload.outbox import Outbox
from ._upload.save import upload_file
from ._upload.spool import Waiting, spool_of

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_URL = "http://127.0.0.1:8765"


class Client:
    """A client of one Stateroom server.

    ``url`` defaults to STATEROOM_URL, else ``http://127.0.0.1:8765``, where ``serve`` listens; ``token`` defaults to
    STATEROOM_TOKEN. ``timeout`` is in seconds, for each wait on the network rather than a whole transfer. Requests are
    retried while the server is not reached, is too busy or is about to stop: for ``retry_seconds`` (or
    STATEROOM_RETRY_SECONDS, else 60), or ``retries`` times instead. The logger ``stateroom`` warns of retries. A large
    download uses up to ``connections`` connections. ``progress`` is None for a bar on a terminal, True or False for one
    always or never, or a function called with ``(label, done, total)`` in bytes. ``verify`` checks transferred bytes
    against their digests and checksums.

    ``cache_dir``, or STATEROOM_CACHE_DIR, is a folder in which ``load``, ``state_dict`` and the downloads keep
    storages, so that a storage of several checkpoints is fetched once. Processes may share the folder; processes that
    start together fetch each storage once. When the folder exceeds ``cache_size``, or STATEROOM_CACHE_SIZE, the
    least recently used storages are deleted. The size is in bytes, or a text (``"20 GB"``, the default). In-place
    loads, and all transfers with ``verify=False``, bypass the cache.

    ``spool_dir``, or STATEROOM_SPOOL_DIR, is a folder for saves that fail because the server is away. They are sent
    before the next save that reaches the server.

    With ``offline="fallback"`` and a cache, a server that is not reached within 2 seconds is replaced by the cache: a
    ref means what it meant last, ``checkpoint.offline`` is True, and loads and downloads take everything from the
    cache, in which this client then keeps all that it loads. Raises ServerUnavailable for what the cache lacks. Saves
    and other changes fail as ever.

    Threads may share a client, and a forked process may go on using it. A pickled or deep-copied client is a new client
    with the same arguments, including the token if it was given here.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int | None = None,
        retry_seconds: float | None = None,
        connections: int = 4,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: int | str | None = None,
        progress: ProgressOption = None,
        verify: bool = True,
        spool_dir: str | os.PathLike[str] | None = None,
        offline: Literal["fallback"] | None = None,
    ) -> None:
        given = url, token

        def secrets() -> tuple[str | None, str | None]:  # a function, because its repr shows no secret
            return given

        self._secrets = secrets
        self._options: dict[str, Any] = {
            "timeout": timeout,
            "retries": retries,
            "retry_seconds": retry_seconds,
            "connections": connections,
            "cache_dir": cache_dir,
            "cache_size": cache_size,
            "progress": progress,
            "verify": verify,
            "spool_dir": spool_dir,
            "offline": offline,
        }
        url = url or os.environ.get("STATEROOM_URL") or DEFAULT_URL
        token = token or os.environ.get("STATEROOM_TOKEN") or None
        seconds = seconds_of(retry_seconds)
        cache = cache_of(cache_dir, cache_size)
        self._http = Http(
            url,
            token,
            timeout=timeout,
            retries=retries,
            retry_seconds=seconds,
            last_answers=_last_answers(offline, cache if verify else None),
        )
        if connections < 1:
            raise InvalidRequest("connections must be at least 1")
        self._namespaces = Namespaces(self._http)
        self._tokens = Tokens(self._http)
        spool = spool_of(spool_dir)
        self._outbox = None if spool is None else Outbox(spool, self._http, self._post)
        self._transfers = Transfers(progress, verify, connections, cache, self._outbox)
        self._saves: dict[int, SaveQueue] = {}

    @property
    def url(self) -> str:
        return self._http.url

    def model(self, name: str, run: str | None = None) -> Model:
        """Return the model ``namespace/name``; the first upload creates it on the server.

        ``run`` is set on saved checkpoints and limits look-ups to that run; it defaults to STATEROOM_RUN, and ``""``
        means no run.
        """
        run = os.environ.get("STATEROOM_RUN") if run is None else run
        return Model(self._model_api(name, run or None), self._save_queue, self.model)

    def models(self) -> Iterator[ModelSummary]:
        """Iterate over all models, by name; each page is fetched when it is needed."""
        return map(model_of, self._http.pages("/v1/models", []))

    def events(
        self, namespace: str | None = None, *, after: After = None, follow: bool = False, kinds: Kinds = ()
    ) -> Iterator[Event]:
        """Iterate over the events of a namespace, or of the whole server, which needs an admin's token: as
        ``Model.events``. The events of a server tell of tokens and of their refusals, too.
        """
        path = "/v1/events" if namespace is None else f"/v1/namespaces/{quote(namespace, safe='')}/events"
        return Events(self._http, path).read(after, kinds, follow=follow)

    def delete_model(self, name: str) -> None:
        """Delete a model that has no checkpoint. The next upload creates it again, with the version after its last.

        Raises ModelNotFound, and Conflict while the model has checkpoints.
        """
        self._model_api(name, None).delete_model()

    def namespaces(self) -> Iterator[Namespace]:
        """Iterate over the namespaces that hold something or have a quota, by name. Takes a token of scope admin."""
        return self._namespaces.all()

    def namespace(self, name: str) -> Namespace:
        """Return what a namespace holds, and its quotas. Takes a token of scope admin."""
        return self._namespaces.get(name)

    def set_quota(
        self,
        namespace: str,
        *,
        bytes: int | str | None = AS_IT_IS,  # noqa: A002  the word for it everywhere else, too
        checkpoints: int | None = AS_IT_IS,
    ) -> Namespace:
        """Limit what a namespace may store: in ``bytes`` (a number, or a text such as ``"500 GB"``), and in
        ``checkpoints``. None removes a limit; one that is left out stays.

        Nothing is deleted: a save that would exceed a quota raises QuotaExceeded. Takes a token of scope admin that is
        not limited to a namespace.
        """
        return self._namespaces.set_quota(namespace, bytes, checkpoints)

    def set_namespace_retention(
        self,
        name: str,
        rules: None = UNCHANGED,
        *,
        keep_last: int | None = None,
        keep_best: KeepBest | None = None,
        keep_every: Mapping[str, int] | None = None,
        keep_for: str | None = None,
        thin_after: int | None = None,
    ) -> Namespace:
        """Set the rules of ``Model.retention`` for all models of a namespace that have none of their own; with None,
        remove them. Takes a token of scope admin.
        """
        wanted = rules_of(keep_last, keep_best, keep_every, keep_for, thin_after)
        if (rules is None) == bool(wanted):
            raise InvalidRequest("give either rules, or None to remove all")
        return self._namespaces.set_retention(name, wanted or None)

    def tokens(self) -> Iterator[Token]:
        """Iterate over all tokens, also expired and revoked ones, by name and without their secrets. Takes a token of
        scope admin that is not limited to a namespace, as do the other two.
        """
        return self._tokens.all()

    def add_token(
        self, name: str, scope: str, *, namespaces: str | Iterable[str] | None = None, expires: Expires = None
    ) -> Token:
        """Make a token of scope ``read``, ``write`` or ``admin``. Return it with its text, ``Token.token``, which is
        not shown again.

        ``namespaces`` limits it to one or several; ``expires`` is a time, or a text: ``"90d"``, ``"12h"``,
        ``"2027-01-31"``. Raises Conflict if the name is taken, also by a revoked token.
        """
        return self._tokens.add(name, scope, namespaces, expires)

    def revoke_token(self, name: str) -> None:
        """Revoke a token, by its name or its id. Servers refuse it, and the links and sessions that were made with it,
        within seconds. Its name stays taken. Raises NotFound.
        """
        self._tokens.revoke(name)

    def send_spooled(self) -> list[Checkpoint]:
        """Send the saves that wait in ``spool_dir``, oldest first, and return their checkpoints.

        All go to this server, even those meant for another. Raises ServerUnavailable while the server is away. A save
        that the server refuses for good is kept aside, with a StateroomWarning.
        """
        if self._outbox is None:
            raise InvalidRequest("this client has no spool_dir, so no saves are waiting; pass spool_dir=... to Client")
        return self._outbox.send_all()

    def close(self) -> None:
        """Wait for background saves, then close the connections; a later call opens new ones.

        Warns (StateroomWarning) of failed saves, or raises the error if ``save_async`` was called with
        ``raise_errors``.
        """
        self._close(may_raise=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(may_raise=error is None)

    def _close(self, *, may_raise: bool) -> None:
        queue = self._save_queue()
        queue.drain()
        self._http.close()
        queue.tell(may_raise=may_raise)

    def _model_api(self, model: str, run: str | None) -> ModelApi:
        return ModelApi(self._http, model, run, self._transfers)

    def _post(self, waiting: Waiting) -> Checkpoint:
        """Send a spooled save as it would have been sent, under its idempotency key; without its origins if this server
        never had them.
        """
        label = waiting.label
        api = self._model_api(label.model, None).in_background()

        def post(fields: Mapping[str, str]) -> Checkpoint:
            with waiting.file.open("rb") as file:
                params = list(fields.items())
                return upload_file(api, file, params, label=label.model, key=label.idempotency_key, original=False)

        try:
            return post(label.fields)
        except InvalidRequest as error:
            if error.code != UNKNOWN_PARENT:
                raise
            LOG.warning("a waiting save of %s is sent without its origin: %s", printable(label.model), error.detail)
            return post({name: text for name, text in label.fields.items() if name not in ORIGINS})

    def _save_queue(self) -> SaveQueue:
        """Return the save queue of this process; a forked process begins without one."""
        queue = self._saves.get(os.getpid())
        return queue if queue is not None else self._saves.setdefault(os.getpid(), SaveQueue())

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy the client by its arguments; the copy reads the environment of its own process."""
        return partial(type(self), *self._secrets(), **self._options), ()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"


def _last_answers(offline: str | None, cache: Cache | None) -> Cache | None:
    """Return the cache in which to keep last answers, None if they are not used. Raises InvalidRequest."""
    if offline is None:
        return None
    if offline != "fallback":
        raise InvalidRequest(f"offline={offline!r} is neither None nor 'fallback'")
    if cache is None:
        raise InvalidRequest("offline='fallback' needs a cache: pass cache_dir=... (and not verify=False) to Client")
    return cache
