"""Running the server: its data dir, its socket, its workers, its shutdown."""

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType

import uvicorn

from ..api.http1.limits import Limits
from ..api.http1.protocol import LimitedProtocol, protocol
from ..api.metrics import Metrics, drop_live, is_metrics_file
from ..api.middleware.browsers import SECURITY_HEADERS
from ..concurrency.scheduling import take_short_turns
from ..data_dir import held
from ..main import create_app, end_waits
from ..maintenance import prepare, room_of
from ..settings import Settings
from ..store.files import make_folder, opened_folder, own_files
from ..values.tracing import Tracer
from . import open_telemetry
from .apart import run_apart
from .logs import start_log
from .memory import collect_seldom, keep_freed_memory
from .supervisor import Supervisor, end_by

FINISH_SECONDS = 10
"""Seconds that a stopping server works on requests that arrived whole, after it has cut its transfers."""

KILL_SECONDS = FINISH_SECONDS + 5
"""Seconds after which a stopping worker is killed, from when it should have cut its transfers."""

SPARE_FILES = 256
"""File descriptors that connections leave free for uploads, packs and the database. A quarter, if that is less."""

KEEP_ALIVE_SECONDS = 75
"""Seconds that an idle connection is kept: longer than clients and proxies keep it, so that they close it first."""

BACKLOG = 2048

MANY_FILES = 2**20


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free one. Raises OSError with a text for the user."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise OSError(f"cannot listen on {host}:{port}: {reason}") from error


def open_many_files() -> None:
    """Raise the soft limit of open files: the 1024 that most systems set is meant for programs that select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _connections() -> int | None:
    """Return the most connections that leave SPARE_FILES free, None for any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft - min(SPARE_FILES, soft // 4)


def serve(settings: Settings) -> None:
    """Run the server until it is told to stop. Raises OSError and StateroomError when it can't start."""
    keep_freed_memory()
    take_short_turns()
    open_many_files()
    start_log(settings.log_format)
    with held(settings.data_dir, durable=settings.durable):
        listener = listen(settings.host, settings.port)
        if settings.store_folder is None:
            run_apart(lambda: prepare(settings))  # the library of object stores does not survive a fork
        else:
            prepare(settings)
        traced = open_telemetry.is_wanted(os.environ)
        if settings.workers == 1:
            collect_seldom()
            _run(settings, listener, None, lambda: _say_ready(listener, settings), traced=traced)
        else:
            _supervise(settings, listener, traced=traced)


def _supervise(settings: Settings, listener: socket.socket, *, traced: bool) -> None:
    """Run workers that accept from one socket, so that no connection is lost when a worker ends."""
    metrics = _empty_folder(settings.data_dir.resolve() / "metrics")

    def work(number: int, ready: Callable[[], None]) -> None:
        counted = room_of(settings).freeing(lambda: Metrics(metrics, number))
        _run(settings, listener, counted, ready, traced=traced)

    collect_seldom()
    Supervisor(
        settings.workers,
        work,
        on_ready=lambda: _say_ready(listener, settings),
        on_end=lambda number: drop_live(metrics, number),
        on_stop=listener.close,
        patience=settings.drain_seconds + KILL_SECONDS,
    ).run()


def _run(
    settings: Settings, listener: socket.socket, metrics: Metrics | None, ready: Callable[[], None], *, traced: bool
) -> None:
    with open_telemetry.opened_tracer() if traced else nullcontext() as tracer:
        _run_traced(settings, listener, metrics, tracer, ready)


def _run_traced(
    settings: Settings,
    listener: socket.socket,
    metrics: Metrics | None,
    tracer: Tracer | None,
    ready: Callable[[], None],
) -> None:
    limits = Limits(
        settings.head_seconds, settings.body_seconds, settings.send_seconds, settings.least_rate, _connections()
    )
    app = create_app(settings, metrics, tracer)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=list(SECURITY_HEADERS),
        proxy_headers=False,
        timeout_graceful_shutdown=settings.drain_seconds + FINISH_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=BACKLOG,
    )
    _Server(config, ready, lambda: end_waits(app), settings.drain_seconds, alone=metrics is None).run(
        sockets=[listener]
    )


class _Server(uvicorn.Server):
    """A server that calls ``ready`` once it answers, and ``on_stop`` when it stops. The first signal drains it. If
    ``alone``, a second signal ends the process as if unhandled; a worker leaves that to its parent, and takes SIGTERM
    only.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        on_stop: Callable[[], None],
        drain_seconds: float,
        *,
        alone: bool,
    ) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self._drain_seconds = drain_seconds
        self._on_ready = ready
        self._alone = alone

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        asyncio.get_running_loop().call_later(self._drain_seconds, self._end_transfers)
        await super().shutdown(sockets)

    def _end_transfers(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, LimitedProtocol):
                connection.end_transfers()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._alone and sig != signal.SIGTERM:
            return
        if self.should_exit and self._alone:
            end_by(sig)
        self.should_exit = True


def _say_ready(listener: socket.socket, settings: Settings) -> None:
    """Print the address, and on a terminal the data dir and a first command. A port given as 0 is known only now."""
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    with suppress(OSError):  # standard output may be a file on a full disk
        print(f"Stateroom is ready on http://{address}:{port}", flush=True)  # noqa: T201 - programs wait for it
        if sys.stdout.isatty():
            token = "" if settings.server_token is None else ' -H "Authorization: Bearer $STATEROOM_SERVER_TOKEN"'
            target = f"http://{address}:{port}/v1/models/vision/classifier/checkpoints"
            data = settings.data_dir.resolve()
            print(f"Its data is in {data}. Upload a first checkpoint from another terminal:")  # noqa: T201 - for people
            print(f"  curl{token} -T checkpoint.tar {target}", flush=True)  # noqa: T201 - as above


def _empty_folder(folder: Path) -> Path:
    """Make the folder that workers count in, and delete the files of earlier workers."""
    make_folder(folder, durable=False)
    with opened_folder(folder) as fd:
        for name in own_files(fd, is_metrics_file):
            os.unlink(name, dir_fd=fd)
    return folder
