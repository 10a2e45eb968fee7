"""The data dir and its contents are for the server's user alone, and another user's folder is never used."""

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import Catalog
from app.data_dir import claim
from app.errors import StateroomError, StoreError
from app.store import LocalPackStore, Spool
from app.store.keys import new_name, object_name
from app.values.span import Span
from tests.functional.classifier import make_net
from tests.functional.torch_files import saved
from tests.support.commands import run, run_program
from tests.support.measure import long, some
from tests.support.server import ROOT, server_environment, start_server

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs to be root")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def open_to_others(folder: Path) -> dict[str, str]:
    """What in ``folder``, or it itself, anybody but its owner may use."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): oct(mode(path)) for path in paths if mode(path) & 0o077}


@long
@pytest.mark.parametrize("umask", some([0o000, 0o022, 0o777], 2))
def test_whatever_the_umask_all_that_a_server_makes_is_its_users_alone(tmp_path: Path, umask: int) -> None:
    server = start_server(tmp_path / "new" / "data", "--workers", "2", umask=umask)
    try:
        with server.client() as http:
            file = saved(make_net(1).state_dict())
            assert http.post("/v1/models/a/b/checkpoints", content=file).status_code == 201
            assert http.get("/v1/models/a/b/checkpoints/1/original").content == file
        made = {path.name for path in server.data_dir.iterdir()}
        assert made >= {"catalog.sqlite3", "catalog.sqlite3-wal", "lock", "packs", "spool", "metrics"}
        assert open_to_others(server.data_dir) == {}
    finally:
        server.kill()


@pytest.mark.parametrize("command", [("migrate",), ("token", "add", "ci", "--scope", "read"), ("sweep",), ("fsck",)])
def test_whatever_the_umask_all_that_a_command_makes_is_its_users_alone(tmp_path: Path, command: tuple) -> None:
    data = tmp_path / "data"
    if command[0] in {"sweep", "fsck"}:
        start_server(data).kill()
    done = run_program("app.__main__", [*command, "--data-dir", str(data)], server_environment(), umask=0)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (0, [])
    assert open_to_others(data) == {}


@pytest.fixture
def careless() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
def test_as_a_library_its_files_are_private_too(tmp_path: Path) -> None:
    with closing(Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalog, closing(Spool(tmp_path / "s")) as spool:
        catalog.migrate()
        catalog.ping()
        store = LocalPackStore(tmp_path / "store", durable=True)
        store.write(new_name(), [b"pack"])
        store.put(new_name(), object_name(range(1)), b"part")
        spool.create(new_name())
        for made in ("catalog.db", "store", "s"):
            assert open_to_others(tmp_path / made) == {}


def test_a_data_dir_that_others_could_read_is_tightened(tmp_path: Path) -> None:
    data, database = tmp_path / "data", tmp_path / "elsewhere.sqlite3"
    for url in (f"sqlite:///{database}", None):
        arguments = ("--database-url", url) if url else ()
        start_server(data, *arguments).kill()
    for path in (data, *data.iterdir(), database):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for url in (f"sqlite:///{database}", None):
        arguments = ("--database-url", url) if url else ()
        start_server(data, *arguments).kill()
    assert open_to_others(data) == {}
    assert mode(database) == 0o600


@pytest.mark.parametrize("names", [["thesis.txt"], ["spool", "lib", "log"], ["catalog.sqlite3.d"], ["lock/", "x"]])
def test_a_folder_of_anything_else_is_refused_and_left_as_it_is(tmp_path: Path, names: list[str]) -> None:
    folder = tmp_path / "home"
    for name in names:
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    with pytest.raises(StateroomError, match=r"neither empty nor the data dir of a server: use an empty or new folder"):
        claim(folder, durable=False)
    assert mode(folder) == 0o755
    assert sorted(path.name for path in folder.iterdir()) == sorted(name.strip("/") for name in names)


def test_an_empty_disk_and_what_a_server_leaves_are_good_data_dirs(tmp_path: Path) -> None:
    (tmp_path / "data" / "lost+found").mkdir(parents=True)
    claim(tmp_path / "data", durable=False)
    server = start_server(tmp_path / "data", "--workers", "2")
    server.kill()
    (server.data_dir / "lock").unlink()
    for path in server.data_dir.glob("catalog*"):
        path.unlink()
    claim(server.data_dir, durable=False)


def test_workers_leave_alone_what_others_keep_in_their_folders(tmp_path: Path) -> None:
    data = tmp_path / "data"
    kept = [data / folder / name for folder in ("metrics", "partial", "spool") for name in ("a.txt", "a.pack")]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    stale = data / "metrics" / "counter_7.db"
    stale.write_bytes(b"")
    start_server(data, "--workers", "2").kill()
    assert run("sweep", "--grace", "0", "--data-dir", str(data)).returncode == 0
    assert all(path.read_text() == "precious" for path in kept)
    assert not stale.exists()


@needs_root
def test_root_is_told_whose_data_dir_it_is_instead_of_locking_its_server_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    start_server(data).kill()
    for path in (data, *data.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    before = sorted(data.rglob("*"))
    for command in (("serve", "--port", "0"), ("token", "add", "ci", "--scope", "read"), ("sweep",), ("fsck",)):
        refused = run(*command, "--data-dir", str(data))
        assert refused.returncode == 1, command
        assert f"belongs to user {NOBODY}" in refused.stderr
        assert "sudo -u" in refused.stderr
    assert sorted(data.rglob("*")) == before


@needs_root
def test_what_cannot_be_tightened_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    """Another user's folder, which this user may use because all may."""
    shutil.copytree(ROOT / "app", tmp_path / "app")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1, 1)
    theirs.chmod(0o777)
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and folder != Path("/") and folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(folder.stat().st_mode | 0o011)
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            claim(theirs, durable=False)
        except StateroomError as error:
            os._exit(0 if f"chmod o-rwx {theirs}" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_store_folder_that_a_group_shares_stays_shared_and_no_other_one_becomes_so(tmp_path: Path) -> None:
    """Servers that run as different users of one group keep their packs there."""
    for root_mode, expected_folder, expected_file in ((0o2775, 0o770, 0o640), (0o755, 0o700, 0o600)):
        root = tmp_path / oct(root_mode)
        root.mkdir()
        root.chmod(root_mode)
        store, name = LocalPackStore(root, durable=False), new_name()
        store.write(name, [b"written"])
        file = tmp_path / "spooled"
        file.write_bytes(b"adopted")
        file.chmod(0o600)
        adopted = new_name()
        store.adopt(adopted, file)
        packs = root / "packs"
        assert {mode(path) for path in (packs, *packs.iterdir())} == {expected_folder}
        assert {mode(path) for path in packs.rglob("*.pack")} == {expected_file}
        assert store.read(name, Span(0, 7)) == b"written"
        assert mode(root) == root_mode & 0o777


def test_a_database_that_cannot_be_opened_is_still_an_error_of_the_catalog(tmp_path: Path) -> None:
    with (
        closing(Catalog(f"sqlite:///{tmp_path / 'nowhere' / 'catalog.db'}")) as catalog,
        pytest.raises(StoreError),
    ):
        catalog.migrate()
