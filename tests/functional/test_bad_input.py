"""Bad input: each gets its code and leaves nothing behind, in the catalog or on disk. Nothing in a file ever runs."""

import io
import json
import os
import socket
import sqlite3
import subprocess
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.functional.classifier import make_net
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import loaded, same, saved
from tests.server import ROOT, Server, start_server

AUDIT = """
import os, sys

_WATCHED = {"import", "exec", "compile", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
            "subprocess.Popen", "pickle.find_class", "ctypes.dlopen", "socket.connect", "shutil.rmtree"}
_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(event, arguments):
    if event in _WATCHED:
        os.write(_log, f"{event} {str(arguments)[:200]}\\n".encode(errors="replace"))


sys.addaudithook(_note)
"""


class Audited:
    """A server in which every import, exec, process and unpickling is written down."""

    def __init__(self, folder: Path) -> None:
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(AUDIT)
        self._log = folder / "audit.log"
        env = {"STATEROOM_DURABLE": "off", "AUDIT_LOG": str(self._log), "PYTHONPATH": f"{folder / 'site'}:{ROOT}"}
        self.server = start_server(folder / "data", env=env)

    def events(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    audited = Audited(tmp_path_factory.mktemp("audited"))
    try:
        warm_up(audited.server)
        yield audited
    finally:
        audited.server.kill()


def warm_up(server: Server) -> None:
    """One of everything, so that what is imported or made lazily is there before the bad input comes."""
    with server.client() as http:
        model = HttpModel(http, "tests/warm-up")
        model.upload(saved({"epoch": 1, "loss": 0.5, "model": make_net().state_dict()}))
        for path in ("latest/state_dict", "latest/file", "latest/original", "latest/tensors", "best"):
            model.get(path)
        http.post(model.url(), content=b"no checkpoint")


@pytest.fixture
def target(audited: Audited, model_name: str) -> Iterator[HttpModel]:
    with audited.server.client() as http:
        yield HttpModel(http, model_name)


Trace = tuple[list[tuple[str, int]], dict[str, list[str]]]


def trace(server: Server) -> Trace:
    """All that a server keeps: its files with their sizes, and every row of its catalog."""
    files = sorted(
        (str(path.relative_to(server.data_dir)), path.stat().st_size)
        for path in server.data_dir.rglob("*")
        if path.is_file() and not path.name.startswith("catalog.sqlite3")
    )
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    with closing(sqlite3.connect(f"file:{server.data_dir / 'catalog.sqlite3'}?mode=ro", uri=True)) as catalog:
        names = [name for (name,) in catalog.execute(tables)]
        return files, {name: sorted(map(repr, catalog.execute(f"SELECT * FROM {name}"))) for name in names}


def assert_soon(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_refused(server: Server, answer: httpx.Response, status: int, code: str, before: Trace) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert_leaks_nothing(server, answer.text)
    assert trace(server) == before


def assert_leaks_nothing(server: Server, text: str) -> None:
    for secret in (str(server.data_dir), str(ROOT), "Traceback", 'File "', "site-packages", "/root", "/tmp"):
        assert secret not in text


def zip_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def torch_script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out, its files are not
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), file)
    return file.getvalue()


def whole() -> bytes:
    return saved({"epoch": 1, "model_state_dict": make_net().state_dict()})


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "an empty body": (lambda: b"", "not-a-checkpoint"),
    "a text": (lambda: b"no checkpoint at all\n" * 100, "not-a-checkpoint"),
    "zeros": (lambda: bytes(100_000), "not-a-checkpoint"),
    "a file cut in its directory": (lambda: whole()[:-50], "not-a-checkpoint"),
    "a file cut in half": (lambda: whole()[: len(whole()) // 2], "not-a-checkpoint"),
    "the end of a file": (lambda: whole()[len(whole()) // 2 :], "not-a-checkpoint"),
    "a zip that is no checkpoint": (lambda: zip_of(**{"readme.txt": b"hello"}), "not-a-checkpoint"),
    "an empty zip": (zip_of, "not-a-checkpoint"),
    "a zip whose pickle is none": (
        lambda: zip_of(**{"x/data.pkl": b"hello", "x/version": b"3\n"}),
        "hostile-checkpoint",
    ),
    "a TorchScript archive": (torch_script, "not-a-checkpoint"),
    "a real tar of the first torch": (tar, "not-a-checkpoint"),
    "a checkpoint without tensors": (lambda: saved({"epoch": 3, "loss": 0.5, "names": ["a"]}), "no-tensors"),
}


@pytest.mark.parametrize(("build", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_checkpoint_is_refused_and_leaves_nothing(
    audited: Audited, target: HttpModel, build: Callable[[], bytes], code: str
) -> None:
    data, before = build(), trace(audited.server)
    for send in (
        lambda: target.http.post(target.url(), content=data, params={"epoch": 1}),
        lambda: target.http.put(target.url(), content=data),
        lambda: target.http.post(target.url(), files={"file": ("x.pt", data)}),
    ):
        assert_refused(audited.server, send(), 422, code, before)


def test_one_ranks_shard_is_refused_and_leaves_nothing(audited: Audited, target: HttpModel, tmp_path: Path) -> None:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own, about a group of one
        distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
        try:
            shard = distribute_tensor(torch.ones(4, 2), init_device_mesh("cpu", (1,)), [Shard(0)])
            data = saved({"model_state_dict": {"fc.weight": shard}})
        finally:
            distributed.destroy_process_group()
    before = trace(audited.server)
    assert_refused(audited.server, target.http.post(target.url(), content=data), 422, "sharded-tensor", before)


class Runs:
    """An object whose unpickling calls ``function``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


ATTACKS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "os.system": lambda marker: (os.system, f"touch {marker}"),
    "eval": lambda marker: (eval, f"open({marker!r}, 'w')"),
    "exec": lambda marker: (exec, f"open({marker!r}, 'w')"),
    "open": lambda marker: (open, marker, "w"),
    "import": lambda _: (__import__, "antigravity"),
    "Popen": lambda marker: (subprocess.Popen, ["touch", marker]),
}


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_code_in_a_pickle_is_stored_inert_and_marked_and_never_runs(
    audited: Audited, target: HttpModel, tmp_path: Path, attack: Callable[[str], tuple[Any, ...]], size: str
) -> None:
    marker = tmp_path / "it-ran"
    net = make_net().state_dict()
    ballast = [f"{i:0100}" for i in range(20_000)] if size == "large" else []  # large ones are read in a child process
    data = saved({"epoch": 1, "model": net, "evil": Runs(*attack(str(marker))), "ballast": ballast})
    already = len(audited.events())

    shown = target.upload(data)
    assert shown["unsafe_globals"]
    assert target.json("latest/tensors")["items"]
    assert same(loaded(target.get("latest/state_dict")), net)
    refusal = target.refusal("latest/file")
    assert refusal["code"] == "unsafe-globals"
    assert target.get("latest/original") == data
    inert = target.get("latest/file", weights_only="false", device="cuda:0")
    with zipfile.ZipFile(io.BytesIO(inert)) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    name = shown["unsafe_globals"][0].rpartition(".")[2]
    assert name.encode() in pickled

    events = audited.events()[already:]
    if size == "small":
        assert events == []
    else:  # the child is one process of ours, which starts as any Python does
        assert not [event for event in events if "touch" in event or "antigravity" in event or "it-ran" in event]
        assert not [event for event in events if event.startswith(("os.system", "pickle.find_class"))]
    assert not marker.exists()


def test_the_audit_sees_what_it_is_there_to_see(audited: Audited) -> None:
    assert any(event.startswith("import ") for event in audited.events())


def test_os_system_is_named_in_the_metadata(target: HttpModel) -> None:
    shown = target.upload(saved({"model": {"w": torch.ones(2)}, "evil": Runs(os.system, "true")}))
    assert shown["unsafe_globals"] == [f"{os.system.__module__}.system"]


def raw(server: Server, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; the status and the body of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        with suppress(OSError):  # it may answer, and close, before it has read all
            connection.sendall(request)
        answer = HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


def hang_up(server: Server, request: bytes, *, half: bool = False) -> bytes:
    """Send bytes and leave; with ``half``, wait for what the server may still say."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        if not half:
            return b""
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def post(path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post_whole(path: str, body: bytes) -> bytes:
    return post(path, f"Content-Length: {len(body)}", body=body)


@pytest.mark.parametrize("half", [True, False], ids=["half closed", "hung up"])
@pytest.mark.parametrize("sent", [0, 1000, None], ids=["nothing sent", "a little sent", "all but a byte sent"])
def test_a_body_shorter_than_it_said_leaves_nothing(
    audited: Audited, target: HttpModel, sent: int | None, half: bool
) -> None:
    data, before = whole(), trace(audited.server)
    said = len(data) + (1 if sent is None else 0)
    request = post(target.url(), f"Content-Length: {said}", body=data if sent is None else data[:sent])
    assert b" 201 " not in hang_up(audited.server, request, half=half)
    assert_soon(lambda: trace(audited.server) == before)


def test_a_body_longer_than_it_said_is_refused_and_leaves_nothing(audited: Audited, target: HttpModel) -> None:
    """What it is cut to is no checkpoint, and what comes after it is no request: either may be answered first."""
    data, before = whole(), trace(audited.server)
    status, body = raw(audited.server, post(target.url(), f"Content-Length: {len(data) - 1000}", body=data))
    assert status in {400, 422}
    assert_leaks_nothing(audited.server, body.decode())
    assert_soon(lambda: trace(audited.server) == before)


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "99999999999999999999999"])
def test_a_content_length_that_is_no_length_is_refused(audited: Audited, target: HttpModel, length: str) -> None:
    before = trace(audited.server)
    status, body = raw(audited.server, post(target.url(), f"Content-Length: {length}", body=whole()))
    assert status in {400, 413, 507}
    assert_leaks_nothing(audited.server, body.decode(errors="replace"))
    assert_soon(lambda: trace(audited.server) == before)


def test_chunks_that_end_early_leave_nothing_and_chunks_that_end_well_are_a_checkpoint(
    audited: Audited, target: HttpModel
) -> None:
    data, before = whole(), trace(audited.server)
    chunk = f"{len(data):x}\r\n".encode() + data + b"\r\n"
    hang_up(audited.server, post(target.url(), "Transfer-Encoding: chunked", body=chunk))
    assert_soon(lambda: trace(audited.server) == before)
    answer = target.http.post(target.url(), content=iter([data[:1000], data[1000:]]))
    assert answer.status_code == 201


BAD_NAMES = [
    *("tests/..", "../tests", "../..", "tests/.", "tests/a..b", "tests/.hidden", "%2e%2e/%2e%2e", "tests/%2e%2e"),
    *(
        "tests/a%20b",
        "tests/-a",
        "tests/%C3%A9",
        f"tests/{'a' * 129}",
        "tests/a%00",
        "tests/a%0a",
        "tests/a:b",
        "tests/~",
    ),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused_and_leaves_nothing(audited: Audited, name: str) -> None:
    before = trace(audited.server)
    status, body = raw(audited.server, post_whole(f"/v1/models/{name}/checkpoints", whole()))
    assert (status, json.loads(body)["code"]) == (422, "bad-model-name")
    assert trace(audited.server) == before


@pytest.mark.parametrize("name", ["..%2f..", "tests/..%2f..%2fx", "a/b/c", "a", "/"])
def test_a_name_of_too_few_or_many_parts_is_no_route_and_leaves_nothing(audited: Audited, name: str) -> None:
    before = trace(audited.server)
    status, body = raw(audited.server, post_whole(f"/v1/models/{name}/checkpoints", whole()))
    assert status in {404, 405, 422}
    assert json.loads(body)["code"]
    assert trace(audited.server) == before


BAD_REFS = ["..", "%2e%2e", "..%2f..%2fcatalog.sqlite3", "../../../etc/passwd", "0", "-1", "v0", "1.5"]


@pytest.mark.parametrize("ref", BAD_REFS)
def test_a_ref_that_is_none_reads_nothing(audited: Audited, target: HttpModel, ref: str) -> None:
    target.upload(whole())
    request = f"GET {target.url()}/{ref}/original HTTP/1.1\r\nHost: localhost\r\n\r\n"
    status, body = raw(audited.server, request.encode())
    assert status in {400, 404, 422}
    assert json.loads(body)["code"]
    assert_leaks_nothing(audited.server, body.decode())


@pytest.mark.parametrize("name", ["../../evil.pt", "/evil.pt", "..\\evil.pt", "evil.pt"])
def test_the_name_of_an_uploaded_file_is_no_path_here(audited: Audited, target: HttpModel, name: str) -> None:
    answer = target.http.post(target.url(), files={"file": (name, whole())})
    assert answer.status_code == 201
    assert not [*audited.server.data_dir.parent.rglob("*evil*")]
    assert not Path("/evil.pt").exists()


@pytest.mark.parametrize("name", ["..%2f..%2fevil.pt", "evil%0d%0aSet-Cookie:a=b", "evil%22;filename=%22x", "evil%00"])
def test_the_name_a_download_is_asked_for_under_is_only_a_name(target: HttpModel, name: str) -> None:
    target.upload(whole())
    answer = target.http.head(f"{target.url('1/file')}/{name}")
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    message = Message()
    message["Content-Disposition"] = answer.headers["Content-Disposition"].partition("; filename*=")[0]
    assert not set(message.get_filename() or "/") & set('/\\"\0\r\n')


@pytest.mark.parametrize(
    "query", ["epoch=three", "epoch=1.5", "loss=low", "epoch=1&epoch=2", "epohc=1", "metric.=1", "metric.a=b", "tag.=x"]
)
def test_a_field_that_is_none_is_refused_and_leaves_nothing(audited: Audited, target: HttpModel, query: str) -> None:
    before = trace(audited.server)
    answer = target.http.post(f"{target.url()}?{query}", content=whole())
    assert answer.status_code in {400, 422}
    assert answer.json()["code"]
    assert_leaks_nothing(audited.server, answer.text)
    assert trace(audited.server) == before


def test_two_uploads_of_one_epoch_at_once_are_two_versions(target: HttpModel) -> None:
    nets = [make_net(seed).state_dict() for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        shown = list(pool.map(lambda net: target.upload(saved(net), epoch=3), nets))
    assert sorted(checkpoint["version"] for checkpoint in shown) == [1, 2]
    for checkpoint, net in zip(shown, nets, strict=True):
        assert same(loaded(target.get(f"{checkpoint['version']}/state_dict")), net)
    assert target.json("epoch:3")["version"] == 2


def test_the_same_bytes_sent_many_times_at_once_are_as_many_versions(target: HttpModel) -> None:
    data = whole()
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda _: target.upload(data)["version"], range(6)))
    assert sorted(versions) == list(range(1, 7))
    assert {target.get(f"{version}/original") for version in versions} == {data}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"needs root to mount a small tmpfs: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_a_507_that_leaves_nothing_and_the_server_goes_on(small_disk: Path) -> None:
    server = start_server(small_disk / "data")
    try:
        with server.client() as http:
            model = HttpModel(http, "tests/full")
            model.upload(whole())
            before = trace(server)
            too_much = saved({"w": torch.zeros(7_000_000)})
            for send in (http.post, http.put):
                answer = send(model.url(), content=too_much)
                assert_refused(server, answer, 507, "storage-full", before)
            unannounced = http.post(model.url(), content=iter([too_much]))
            assert_refused(server, unannounced, 507, "storage-full", before)
            assert model.get("latest/original") == whole()
            assert model.upload(saved(make_net(1).state_dict()))["version"] == 2
            assert_leaks_nothing(server, server.log)
    finally:
        server.kill()
