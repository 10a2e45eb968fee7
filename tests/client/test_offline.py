"""A client that falls back to its cache while the server is not reached."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from stateroom import Client, InvalidRequest, ServerUnavailable
from tests.client.faults import faulty
from tests.conftest import StartServer
from tests.functional.torch_files import same


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(1000, 300), nn.BatchNorm1d(300), nn.Linear(300, 2))


def momentum(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def trained(value: float) -> dict:
    net = network()
    for parameter in net.parameters():
        nn.init.constant_(parameter, value)
        parameter.grad = torch.ones_like(parameter)
    optimizer = momentum(net)
    optimizer.step()
    return {"epoch": int(value), "net": net.state_dict(), "sgd": optimizer.state_dict()}


def test_without_the_server_a_ref_means_what_it_meant_last_and_loads_from_the_cache(
    fresh_server: StartServer, tmp_path: Path
) -> None:
    server = fresh_server()
    cache = tmp_path / "cache"
    with faulty(lambda: server.port) as relay:

        def client(folder: Path = cache, url: str = relay.url) -> Client:
            return Client(url, cache_dir=folder, offline="fallback", retry_seconds=0.1)

        with Client(server.base_url) as direct:
            model = direct.model("a/b")
            for value in (1, 2, 3):
                model.save(trained(value))
            model.alias("prod", 1)
        with client() as online:
            model = online.model("a/b")
            assert not model.checkpoint("prod").offline
            model.state_dict("prod", component="net")
            with Client(server.base_url) as direct:
                direct.model("a/b").alias("prod", 2)
            last = model.load("prod")
            into = {"net": (net := network()), "sgd": momentum(net)}
            model.load_into(into, "prod")
            half = model.state_dict("prod", component="net", dtype="float16", include="0.*")
            stored = model.download_state_dict("prod", tmp_path / "online.pt", component="net").read_bytes()
            model.checkpoint(3)
            with pytest.raises(InvalidRequest):
                model.state_dict("prod", component="other")
        server.kill()

        with client() as offline:
            model = offline.model("a/b")
            found = model.checkpoint("prod")
            assert (found.version, found.offline) == (2, True)
            assert same(model.load("prod"), last)
            assert model.load(found)["epoch"] == model.load(2)["epoch"] == 2
            again = {"net": (other := network()), "sgd": momentum(other)}
            assert len(model.load_into(again, "prod").missing_keys) == 0
            assert same(other.state_dict(), net.state_dict())
            assert same(again["sgd"].state_dict(), into["sgd"].state_dict())
            assert same(model.state_dict("prod", component="net", dtype="float16", include="0.*"), half)
            assert model.download_state_dict("prod", tmp_path / "off.pt", component="net").read_bytes() == stored
            for what in (lambda: model.load(3), lambda: model.load("latest"), lambda: model.save({"w": torch.ones(2)})):
                with pytest.raises(ServerUnavailable):
                    what()
            with pytest.raises(ServerUnavailable, match="does not have the last answer of /v1/models/a/b/checkpoints/"):
                offline.model("a/b", run="other").checkpoint("prod")
        with client(url=f"http://localhost:{server.port}") as elsewhere, pytest.raises(ServerUnavailable):
            elsewhere.model("a/b").checkpoint("prod")

        with client() as follower:
            booted = network()
            with follower.model("a/b").follow({"net": booted}, "prod") as following:
                assert next(following).checkpoint.offline
                assert same(booted.state_dict(), net.state_dict())
                server.restart()
                with Client(server.base_url) as direct:
                    direct.model("a/b").alias("prod", 3)
                update = next(following)
                assert (update.checkpoint.version, update.checkpoint.offline, update.previous) == (3, False, found)
                assert same(booted.state_dict(), trained(3)["net"])
        server.kill()

        size = max(path.stat().st_size for path in cache.iterdir())
        untouched = network()
        before = copy.deepcopy(untouched.state_dict())
        for path in cache.iterdir():
            if path.stat().st_size == size:
                path.unlink()
        with client() as offline, pytest.raises(ServerUnavailable, match=r"lacks 1\.2 MB of a/b@3: blake3:"):
            offline.model("a/b").load_into({"net": untouched}, "prod")
        assert same(untouched.state_dict(), before)
        assert cache.stat().st_mode & 0o777 == 0o700


def test_it_needs_a_cache() -> None:
    with pytest.raises(InvalidRequest, match="needs a cache"):
        Client(offline="fallback")
    with pytest.raises(InvalidRequest, match="neither None nor 'fallback'"):
        Client(cache_dir="cache", offline="always")  # type: ignore[arg-type]
