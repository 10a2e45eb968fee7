"""Downloads that break half-way: by damage, by loss, by a client that goes away."""

import hashlib
import http.client
from contextlib import closing
from pathlib import Path

import pytest
import torch

from app.api.requests.digests import sha256_field
from tests.api.conftest import problem, saved
from tests.conftest import StartServer
from tests.support.server import Server


def large(server: Server, megabytes: int) -> str:
    """The URL of a checkpoint whose download takes several windows."""
    with server.client() as http:
        tensors = {f"{i}": torch.randn(1 << 20) for i in range(megabytes // 4)}
        answer = http.post("/v1/models/a/large/checkpoints", content=saved(tensors))
        assert answer.status_code == 201
        return answer.json()["urls"]["self"]


def damage(server: Server, at: float) -> None:
    """Flip a byte of the only pack, ``at`` of the way through it."""
    (pack,) = Path(server.data_dir / "packs").rglob("*.pack")
    with pack.open("r+b") as file:
        place = int(pack.stat().st_size * at)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_damage_is_a_problem_or_a_cut_connection_but_never_a_whole_answer(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    url = large(server, 64) + "/original"
    with server.client() as client:
        whole = client.get(url).content
        damage(server, 0.9)
        with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
            connection.request("GET", url)
            answer = connection.getresponse()
            assert (answer.status, int(answer.headers["Content-Length"])) == (200, len(whole))
            with pytest.raises(http.client.IncompleteRead) as cut:
                answer.read()
        assert whole.startswith(cut.value.partial)
        assert len(cut.value.partial) < len(whole) * 0.9
        late = client.get(url, headers={"Range": f"bytes={int(len(whole) * 0.9) - 10}-"})
        assert problem(late) == (500, "damaged-blob")
        assert client.get(url, headers={"Range": "bytes=0-1000000"}).content == whole[:1000001]


def test_a_lost_pack_is_no_404(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    url = large(server, 4)
    server.restart()  # with nothing cached
    for pack in Path(server.data_dir / "packs").rglob("*.pack"):
        pack.unlink()
    with server.client() as client:
        assert problem(client.get(url + "/original")) == (500, "pack-missing")
        assert client.get(url).status_code == 200


def test_a_client_that_goes_away_costs_nobody_anything(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    url = large(server, 64) + "/original"
    with server.client() as client:
        for _ in range(5):
            with client.stream("GET", url) as answer:
                next(answer.iter_raw())
        answer = client.get(url, headers={"Want-Repr-Digest": "sha-256=1"})
        assert answer.headers["Repr-Digest"] == sha256_field(hashlib.sha256(answer.content).hexdigest())
    assert server.stop() in {0, 130}
    assert "Traceback" not in server.log
    lines = [line for line in server.requests if line["route"].endswith("/original")]
    assert [(line["status"], "cut" in line) for line in lines] == [(200, True)] * 5 + [(200, False)]
