"""The client's main job on any Python and torch that it supports: ``python round_trip.py URL``.

A script of its own, because the tests beside it need the server's Python.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from stateroom import Client


def main(url: str) -> None:
    net = nn.Sequential(nn.Linear(2000, 600), nn.ReLU(), nn.Linear(600, 10))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2000)).sum().backward()
    optimizer.step()
    saved = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
    name = f"tests/round-trip-{sys.version_info[0]}.{sys.version_info[1]}"
    with Client(url) as client:
        model = client.model(name)
        first = model.save(saved, epoch=1, loss=0.5)
        second = model.save_async(saved, epoch=2, loss=0.25).result()
        check(model.checkpoint("best") == second, "best is the second")
        for found in (model.load(first)["model"], model.state_dict("latest", component="model")):
            check(all(torch.equal(found[key], value) for key, value in net.state_dict().items()), "what was saved")
        other = nn.Sequential(nn.Linear(2000, 600), nn.ReLU(), nn.Linear(600, 10))
        other_optimizer = torch.optim.Adam(other.parameters())
        model.load_into({"model": other, "optimizer": other_optimizer}, "latest")
        check(torch.equal(other[0].weight, net[0].weight), "loaded in place")
        wider = nn.Sequential(nn.Linear(2000, 600), nn.ReLU(), nn.Linear(600, 20))
        report = model.warmstart(wider, "latest", component="model")
        check(set(report.matched_keys) == {"0.weight", "0.bias"}, "what fits")
        with tempfile.TemporaryDirectory() as folder:
            path = model.download("latest", Path(folder) / "file.pt", map_location="cpu")
            check(torch.equal(torch.load(path)["model"]["2.bias"], net[2].bias), "a file that torch.load reads")
    listed = subprocess.run(
        [sys.executable, "-m", "stateroom._cli.main", "--url", url, "ls", name],
        check=True,
        capture_output=True,
        text=True,
    )
    check("0.25" in listed.stdout, "the command lists it")
    print(f"right on Python {sys.version.split()[0]} with torch {torch.__version__}")


def check(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"not so: {what}")


if __name__ == "__main__":
    main(sys.argv[1])
