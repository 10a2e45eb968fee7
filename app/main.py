"""The composition root: which parts there are, who owns them, and how they are run."""

import fcntl
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

import uvicorn
from fastapi import FastAPI

from .api import application
from .api.services import Services, Streams
from .catalog import Catalog
from .deliver.service import Deliver
from .errors import StateroomError
from .ingest import Ingest
from .memory import collect_seldom, keep_freed_memory
from .settings import Settings
from .store import LocalPackStore, Spool
from .store.files import make_folder
from .upkeep.leftovers import remove_leftovers

GRACE_SECONDS = 30
"""How long transfers that run may go on when the server is told to stop."""

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than clients and proxies keep theirs, so that theirs is never cut."""


def server_version() -> str:
    try:
        return installed_version("stateroom-server")
    except PackageNotFoundError:  # run from the repository
        return "0.0.0"


@contextmanager
def open_services(settings: Settings) -> Iterator[Services]:
    """All parts of a server, on a catalog that is migrated already; closed in the reverse order.

    Only for a process that holds the data dir: what a crash left there is removed.
    """
    with ExitStack() as stack:
        catalog = Catalog(settings.catalog_url, durable=settings.durable)
        stack.callback(catalog.close)
        store = LocalPackStore(settings.store_folder, durable=settings.durable)
        spool = Spool(settings.spool_folder)
        stack.callback(spool.close)
        remove_leftovers(catalog, store, spool, alone=settings.alone)
        ingest = Ingest(catalog, store, spool)
        stack.callback(ingest.close)
        deliver = Deliver(catalog, store)
        stack.callback(deliver.close)
        token = settings.server_token.get_secret_value() if settings.server_token else None
        yield Services(catalog, store, ingest, deliver, Streams(), token)


def create_app(settings: Settings) -> FastAPI:
    """The application on a database that is migrated already; its lifespan owns what it opens."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with open_services(settings) as services:
            app.state.services = services
            yield

    return application.build(server_version(), lifespan)


def migrate(settings: Settings) -> None:
    """Create or upgrade the catalog's tables; safe to run again."""
    make_folder(settings.data_dir, durable=settings.durable)
    with closing(Catalog(settings.catalog_url)) as catalog:
        catalog.migrate()


@contextmanager
def data_dir_held(settings: Settings) -> Iterator[None]:
    """While held, this process alone serves from the data dir. Raises StateroomError where another one does.

    The lock goes with the process, however it ends.
    """
    make_folder(settings.data_dir, durable=settings.durable)
    fd = os.open(settings.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateroomError(f"another server runs on the data dir {settings.data_dir}") from None
        yield
    finally:
        os.close(fd)


class _Server(uvicorn.Server):
    """Says where it is once it answers there: the port is known only then when 0 was asked for."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            print(f"Stateroom is ready on http://{address}:{port}", flush=True)  # noqa: T201 - the one line it prints


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError with a text for the user."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise OSError(f"cannot listen on {host}:{port}: {reason}") from error


def _is_the_servers(record: logging.LogRecord) -> bool:
    """False for uvicorn's warnings about what a client sent: it has its answer, and could fill the log with them."""
    return record.levelno > logging.WARNING or record.module != "httptools_impl"


def serve(settings: Settings) -> None:
    """Run the server until it is told to stop. Raises OSError and StateroomError when it can't start."""
    keep_freed_memory()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").addFilter(_is_the_servers)
    with data_dir_held(settings):
        listener = listen(settings.host, settings.port)
        with closing(Catalog(settings.catalog_url)) as catalog:
            if settings.on_sqlite:
                catalog.migrate()
            catalog.ping()
        config = uvicorn.Config(
            create_app(settings),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        collect_seldom()
        with suppress(KeyboardInterrupt):  # uvicorn has already ended in good order when it passes Ctrl+C on
            _Server(config).run(sockets=[listener])
