"""Scenarios 7 to 9: saved on one device, loaded on another. The device of a download is that in its persistent ids."""

import pytest
import torch

from stateroom import Model as ClientModel
from tests.functional.classifier import Training, adam, make_net, predictions, sgd
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save, loaded, locations, same, saved

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens on a host without CUDA")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")


@no_gpu
def test_a_file_saved_on_gpu_does_not_load_here_as_it_is() -> None:
    """What the tests below rest on: the tag is real to torch."""
    with pytest.raises(RuntimeError, match="CUDA"):
        loaded(saved(make_net().state_dict(), device="cuda:3"))


def test_scenario_07_saved_on_gpu_a_bare_load_works_on_cpu(model: HttpModel, save: Save) -> None:
    net = make_net()
    shown = model.upload(save(net.state_dict(), device="cuda:3"))
    assert shown["devices"] == ["cuda:3"]
    data = model.get("latest/state_dict", device="cpu")
    assert locations(data) == ["cpu"]
    again = make_net(seed=9)
    again.load_state_dict(loaded(data), strict=True)
    assert torch.equal(predictions(again), predictions(net))


def test_scenario_07_the_whole_checkpoint_loads_on_cpu_too(model: HttpModel, save: Save) -> None:
    training = Training.start(adam, seed=1)
    checkpoint = {
        "epoch": 0,
        "net": training.net.state_dict(),
        "opt": training.optimizer.state_dict(),
        "device": "cuda:3",
    }
    model.upload(save(checkpoint, device="cuda:3"))
    data = model.get("latest/file", device="cpu")
    assert locations(data) == ["cpu"]
    assert same(loaded(data), checkpoint)  # "device" too: it is the user's own text


def test_scenario_07_storages_of_several_devices_all_come_to_cpu(model: HttpModel, save: Save) -> None:
    net = make_net()
    tags = iter(["cuda:0", "cuda:1", "cpu", "mps"] * 3)
    shown = model.upload(save(net.state_dict(), device=lambda _: next(tags)))
    assert shown["devices"] == ["cpu", "cuda:0", "cuda:1", "mps"]
    data = model.get("latest/state_dict", device="cpu")
    assert locations(data) == ["cpu"]
    assert same(loaded(data), net.state_dict())


def test_scenario_07_the_client_brings_it_to_cpu(client_model: ClientModel, model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save({"model": net.state_dict()}, device="cuda:3"))
    assert same(client_model.state_dict("latest", map_location="cpu"), net.state_dict())
    assert same(client_model.load("latest", map_location="cpu"), {"model": net.state_dict()})
    again = make_net(seed=9)
    client_model.load_into(again, "latest")
    assert same(again.state_dict(), net.state_dict())


def test_scenario_08_saved_on_gpu_it_is_served_as_saved(model: HttpModel) -> None:
    net = make_net()
    model.upload(saved(net.state_dict(), device="cuda:3"))
    assert locations(model.get("latest/state_dict")) == ["cuda:3"]
    assert locations(model.get("latest/file")) == ["cuda:3"]
    assert same(loaded(model.get("latest/state_dict"), map_location="cpu"), net.state_dict())


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "cuda", "cuda:127"])
def test_scenario_08_saved_on_gpu_it_is_served_for_another_index(model: HttpModel, save: Save, device: str) -> None:
    net = make_net()
    model.upload(save(net.state_dict(), device="cuda:3"))
    for route in ("latest/state_dict", "latest/file"):
        data = model.get(route, device=device)
        assert locations(data) == [device]
        assert same(loaded(data, map_location="cpu"), net.state_dict())


@pytest.mark.parametrize("device", ["cuda:0", "cuda:5", "mps", "xpu:1"])
def test_scenario_09_saved_on_cpu_the_device_is_written_into_the_file(
    model: HttpModel, save: Save, device: str
) -> None:
    net = make_net()
    model.upload(save({"epoch": 1, "model": net.state_dict()}))
    for route in ("latest/state_dict", "latest/file"):
        assert locations(model.get(route, device=device)) == [device]
    assert same(loaded(model.get("latest/state_dict", device=device), map_location="cpu"), net.state_dict())


@no_gpu
def test_scenario_09_a_bare_load_then_wants_that_device(model: HttpModel, save: Save) -> None:
    model.upload(save(make_net().state_dict()))
    with pytest.raises(RuntimeError, match="CUDA"):
        loaded(model.get("latest/state_dict", device="cuda:0"))


@gpu
def test_scenarios_07_to_09_on_a_real_gpu(model: HttpModel, client_model: ClientModel) -> None:
    net = make_net().to("cuda:0")
    model.upload(saved(net.state_dict()))
    assert loaded(model.get("latest/state_dict"))["fc1.weight"].device == torch.device("cuda:0")
    assert loaded(model.get("latest/state_dict", device="cpu"))["fc1.weight"].device == torch.device("cpu")
    model.upload(saved(make_net().state_dict()))
    assert loaded(model.get("latest/state_dict", device="cuda:0"))["fc1.weight"].device == torch.device("cuda:0")
    assert client_model.state_dict("latest", map_location="cuda:0")["fc1.weight"].device == torch.device("cuda:0")


def test_scenario_09_meta_tells_shapes_without_bytes(model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save(net.state_dict()))
    data = model.get("latest/state_dict", device="meta")
    served = loaded(data)
    assert {tensor.device.type for tensor in served.values()} == {"meta"}
    assert {key: tensor.shape for key, tensor in served.items()} == {
        key: tensor.shape for key, tensor in net.state_dict().items()
    }
    assert len(data) < 16 * 1024


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "cude"])
@pytest.mark.parametrize("route", ["latest/state_dict", "latest/file"])
def test_scenario_09_a_device_that_torch_does_not_know_is_refused(
    model: HttpModel, save: Save, route: str, device: str
) -> None:
    model.upload(save(make_net().state_dict()))
    refusal = model.refusal(route, device=device)
    assert (refusal["status"], refusal["code"]) == (422, "unknown-device")


def test_scenario_08_an_optimizers_state_moves_with_it(model: HttpModel, save: Save) -> None:
    training = Training.start(sgd, seed=1)
    training.epoch()
    state_dict = training.optimizer.state_dict()
    model.upload(save({"net": training.net.state_dict(), "opt": state_dict}, device="cuda:3"))
    data = model.get("latest/state_dict", component="opt", device="cuda:1")
    assert locations(data) == ["cuda:1"]
    assert same(loaded(data, map_location="cpu"), state_dict)
