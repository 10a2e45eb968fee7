"""Compare downloads with ``huggingface_hub`` from a server and from nginx, which has the same file in a plain folder.

The client is that of ``make integrations``; each download goes to an empty cache.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.bench import Bench
from benchmarks.peers import PEERS, ROOT, Peer
from benchmarks.rows import Row, skipped
from benchmarks.sample import rate, times_as_fast
from stateroom import Client

WHAT = "hf_hub_download of one safetensors file"
PYTHON = ROOT / "build" / "integrations" / "bin" / "python"
MODEL, FILE = "bench/hub", "model.safetensors"
COMMIT = "0" * 40
NGINX = PEERS[0]

DOWNLOADS = """
import json, os, shutil, sys, time
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
from huggingface_hub import __version__, hf_hub_download
endpoints, model, file, cache, rounds = json.loads(sys.argv[1])
times = [[] for _ in endpoints]
for number in range(-1, rounds):
    for side, endpoint in list(enumerate(endpoints))[:: 1 if number % 2 else -1]:
        started = time.perf_counter()
        hf_hub_download(model, file, endpoint=endpoint, cache_dir=cache)
        if number >= 0:
            times[side].append(time.perf_counter() - started)
        shutil.rmtree(cache)
print(json.dumps([__version__, *times]))
"""
"""The program of the client. The first round is not counted, since it warms memory and caches."""


def rows(bench: Bench) -> Iterator[Row]:
    if not PYTHON.exists():
        yield skipped("Hub", WHAT, "huggingface_hub is not installed: make integrations")
        return
    if not bench.has(NGINX):
        yield skipped("Hub", WHAT, f"{NGINX.name} is not at hand")
        return
    folder = bench.folder / "hub"
    folder.mkdir()
    path = folder / FILE
    count = bench.size // 4 // 16
    save_file({f"layers.{number}.weight": torch.randn(count) for number in range(16)}, path)
    with bench.server() as server, _files(bench, path) as files:
        with Client(server.base_url, progress=False) as client:
            client.model(MODEL).upload(folder)
        version, ours, theirs = _downloads([server.base_url, files], bench)
    size = path.stat().st_size
    peer = f"{rate(size, theirs)} from nginx, huggingface_hub {version}"
    yield Row("Hub", WHAT, rate(size, ours), peer, times_as_fast(ours, theirs))


def _files(bench: Bench, path: Path) -> AbstractContextManager[str]:
    """Run nginx with the file under the path that the client asks for, and with the header that it wants."""
    at = f"{MODEL}/resolve/main"

    def command(program: str, folder: Path, port: int) -> list[str]:
        place = folder / "files" / at
        place.mkdir(parents=True)
        (place / FILE).hardlink_to(path)
        started = NGINX.start(program, folder, port)
        config = folder / "nginx.conf"
        header = f"root {folder}/files;\n    add_header X-Repo-Commit {COMMIT};"
        config.write_text(config.read_text().replace(f"root {folder}/files;", header))
        return started

    return Peer("nginx", NGINX.program, NGINX.own, at, command, NGINX.version_option).running(bench.folder / "plain")


def _downloads(endpoints: list[str], bench: Bench) -> tuple[str, list[float], list[float]]:
    """Return the client's version, and the seconds of the downloads from either endpoint."""
    wanted = [endpoints, MODEL, FILE, str(bench.folder / "hub-cache"), bench.rounds]
    done = subprocess.run([PYTHON, "-c", DOWNLOADS, json.dumps(wanted)], stdout=subprocess.PIPE, text=True, check=True)
    version, ours, theirs = json.loads(done.stdout.splitlines()[-1])
    return version, ours, theirs
