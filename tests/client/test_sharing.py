"""One client, many threads; one client, two processes."""

from concurrent.futures import ThreadPoolExecutor

import torch

from stateroom import Client
from tests.support.scripts import run_script
from tests.support.server import Server

FORKS = """
import os, sys
import torch
from stateroom import Client

model = Client(sys.argv[1]).model(sys.argv[2])
# numpy's bytes: torch's own threads don't survive a fork
expected = model.state_dict("latest")["w"].numpy().tobytes()
pid = os.fork()
for _ in range(20):
    assert model.state_dict("latest")["w"].numpy().tobytes() == expected
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""

COLLECTS = """
import gc, os
from stateroom._http.session import Http

http = Http("http://127.0.0.1:9", None, timeout=1, retries=0)
connections = http._client()
pid = os.fork()
del http
gc.collect()
if pid == 0:
    os._exit(connections.is_closed)
assert os.waitpid(pid, 0)[1] == 0
assert connections.is_closed
"""


def test_a_forked_process_leaves_its_parents_connections_open() -> None:
    done = run_script(COLLECTS)
    assert done.returncode == 0, done.stderr


def test_threads_may_share_a_client(client: Client, model_name: str) -> None:
    def save_and_load(number: int) -> bool:
        model = client.model(f"{model_name}-{number}")
        tensor = torch.full((200_000,), float(number))
        model.save({"w": tensor})
        return all(torch.equal(model.state_dict("latest")["w"], tensor) for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(save_and_load, range(8)))


def test_a_forked_process_may_go_on_with_its_parents_client(client: Client, server: Server, model_name: str) -> None:
    client.model(model_name).save({"w": torch.randn(200_000)})
    done = run_script(FORKS, server.base_url, model_name)
    assert done.returncode == 0, done.stderr
