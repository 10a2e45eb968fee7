"""Loading of checkpoints through a real server, with real torch on both ends."""

import copy
import hashlib
import io
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from stateroom import (
    Client,
    ComponentAmbiguous,
    Model,
    ModelNotFound,
    NoKeysMatched,
    StateroomWarning,
    UnknownComponent,
    UnsafeGlobals,
)


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def network() -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 6, 5), norm=nn.BatchNorm2d(6), fc=nn.Linear(6, 4)))


def trained(optimizer: type[torch.optim.Optimizer], **options: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    opt = optimizer(net.parameters(), lr=0.01, **options)  # type: ignore[call-arg]  # each optimizer has one
    for batch in range(3):
        step(net, opt, batch)
    return net, opt


def step(net: nn.Module, opt: torch.optim.Optimizer, batch: int) -> None:
    data = torch.randn(5, 4, generator=torch.Generator().manual_seed(batch))
    opt.zero_grad()
    net(data).square().sum().backward()
    opt.step()


def equal(a: object, b: object) -> bool:
    """The same, tensor for tensor and bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_every_field_comes_back(model: Model) -> None:
    net, opt = trained(torch.optim.Adam)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1)
    saved = {
        "epoch": 3,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": opt.state_dict(),
        "scheduler": schedule.state_dict(),
        "rng": torch.get_rng_state(),
        "nested": [{"tensor": torch.arange(6).reshape(2, 3).t(), "none": None}, (1.5, "text", b"bytes", {1, 2})],
        "half": torch.zeros(2, dtype=torch.bfloat16).view(torch.int16),
    }
    model.save(saved)
    assert equal(model.load("latest"), saved)


@pytest.mark.parametrize(
    ("optimizer", "options"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {"weight_decay": 0.1})]
)
def test_a_run_resumed_through_stateroom_follows_the_one_that_never_stopped(
    optimizer: type[torch.optim.Optimizer], options: dict[str, float], model: Model
) -> None:
    net, opt = trained(optimizer, **options)
    model.save({"epoch": 3, "model_state_dict": net.state_dict(), "optimizer_state_dict": opt.state_dict()})
    for batch in range(3, 6):
        step(net, opt, batch)

    again = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    opt_again = optimizer(again.parameters(), lr=1.0)  # type: ignore[call-arg]  # each optimizer has one
    found = model.load("latest", map_location="cpu")
    again.load_state_dict(found["model_state_dict"])
    opt_again.load_state_dict(found["optimizer_state_dict"])
    for batch in range(found["epoch"], 6):
        step(again, opt_again, batch)
    assert equal(again.state_dict(), net.state_dict())


def test_the_first_run_of_a_job_finds_its_default(model: Model) -> None:
    assert model.load("latest", default=None) is None
    with pytest.raises(ModelNotFound):
        model.load("latest")
    model.save({"w": torch.zeros(1)})
    assert model.load("step:7", default="start") == "start"


def test_what_needs_unpickling_is_loaded_only_on_request(model: Model) -> None:
    net = nn.Linear(3, 2)
    with pytest.warns(StateroomWarning):
        model.save({"net": net, "where": Path("here")})
    with pytest.raises(UnsafeGlobals, match=r"can load its components .*: 'net'\. .*weights_only=False") as refused:
        model.load("latest")
    assert torch.equal(model.state_dict("latest", component="net")["weight"], net.weight)
    assert "torch.nn.modules.linear.Linear" in refused.value.globals
    found = model.load("latest", weights_only=False)
    assert equal(found["net"].state_dict(), net.state_dict())
    assert found["where"] == Path("here")


def test_a_component_is_fetched_alone(model: Model) -> None:
    net, opt = trained(torch.optim.Adam)
    model.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": opt.state_dict()})
    found = model.state_dict("latest")
    assert equal(dict(found), dict(net.state_dict()))
    assert found._metadata == net.state_dict()._metadata  # type: ignore[attr-defined]  # an OrderedDict has it
    assert equal(model.state_dict("latest", component="optimizer_state_dict"), opt.state_dict())


def test_two_models_in_one_file_are_asked_for_by_name(model: Model) -> None:
    first, second = nn.Linear(3, 2), nn.Linear(2, 3)
    model.save({"modelA_state_dict": first.state_dict(), "modelB_state_dict": second.state_dict()})
    with pytest.raises(ComponentAmbiguous, match="modelA_state_dict"):
        model.state_dict("latest")
    with pytest.raises(UnknownComponent, match="modelA_state_dict"):
        model.state_dict("latest", component="modelC_state_dict")
    assert equal(dict(model.state_dict("latest", component="modelB_state_dict")), dict(second.state_dict()))


def test_keys_are_stripped_filtered_renamed_and_prefixed(model: Model) -> None:
    net = network()
    model.save({f"module.{key}": value for key, value in net.state_dict().items()})
    selected = model.state_dict(
        "latest",
        strip_prefix="module.",
        include=["conv1.*", "norm.*"],
        exclude="*.num_batches_tracked",
        rename={"conv1.": "stem."},
        add_prefix="net.",
    )
    assert list(selected) == [
        "net.stem.weight",
        "net.stem.bias",
        "net.norm.weight",
        "net.norm.bias",
        "net.norm.running_mean",
        "net.norm.running_var",
    ]
    assert torch.equal(selected["net.stem.weight"], net.conv1.weight)
    with pytest.raises(NoKeysMatched) as refused:
        model.state_dict("latest", include="conv1.weight")
    assert "module.conv1.weight" in refused.value.near


def test_tied_weights_stay_tied_and_views_stay_views(model: Model) -> None:
    base = torch.arange(12.0)
    model.save({"a": base, "b": base, "c": base[2:8].view(2, 3).t()})
    found = model.state_dict("latest")
    assert found["a"].data_ptr() == found["b"].data_ptr()
    assert found["c"].data_ptr() == found["a"].data_ptr() + 8
    assert found["c"].stride() == (1, 3)
    assert equal(found["c"].contiguous(), base[2:8].view(2, 3).t().contiguous())


def relocated(obj: object, location: str) -> io.BytesIO:
    """What torch.save would have written of tensors on ``location``, a device that this machine may not have."""
    tag = torch.serialization.location_tag
    file = io.BytesIO()
    torch.serialization.location_tag = lambda _: location
    try:
        torch.save(obj, file)
    finally:
        torch.serialization.location_tag = tag
    file.seek(0)
    return file


@pytest.mark.parametrize("map_location", ["cpu", torch.device("cpu"), {"cuda:3": "cpu"}, lambda storage, _: storage])
def test_what_was_saved_on_a_gpu_is_loaded_without_one(map_location: object, model: Model, tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    checkpoint = model.upload(relocated({"model_state_dict": state}, "cuda:3"))
    assert checkpoint.devices == ("cuda:3",)
    assert equal(dict(model.state_dict("latest", map_location=map_location)), dict(state))
    assert equal(dict(model.load("latest", map_location)["model_state_dict"]), dict(state))
    if isinstance(map_location, (str, torch.device)):
        path = model.download("latest", tmp_path / "out.pt", map_location)
        assert equal(dict(torch.load(path)["model_state_dict"]), dict(state))


def test_meta_tensors_come_without_their_bytes(model: Model) -> None:
    model.save({"w": torch.zeros(1_000_000)})
    seen: list[int] = []
    quiet = Client(model._api.http.url, progress=lambda _label, done, _total: seen.append(done))
    assert quiet.model(model.name).state_dict("latest", map_location="meta")["w"].is_meta
    assert max(seen) < 100_000


def test_tensors_are_iterated_with_dotted_keys(model: Model) -> None:
    net, opt = trained(torch.optim.Adam)
    model.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": opt.state_dict()})
    assert equal(dict(model.iter_tensors("latest")), dict(net.state_dict()))
    found = dict(model.iter_tensors("latest", component="optimizer_state_dict", include="*.exp_avg"))
    assert list(found) == [f"state.{i}.exp_avg" for i in range(4)]
    assert equal(found["state.1.exp_avg"], opt.state_dict()["state"][1]["exp_avg"])


def test_a_warning_names_the_model_once(model: Model) -> None:
    net, opt = trained(torch.optim.SGD)
    opt.param_groups[0]["where"] = Path("here")
    with pytest.warns(StateroomWarning):
        checkpoint = model.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": opt.state_dict()})
    for ref in (checkpoint, "latest", 1):
        with pytest.warns(StateroomWarning, match="left out") as seen:
            model.state_dict(ref, component="optimizer_state_dict")
        assert [str(each.message).count(model.name) for each in seen] == [1]


def test_what_a_state_dict_cannot_keep_is_named_in_a_warning(model: Model) -> None:
    net, opt = trained(torch.optim.SGD)
    opt.param_groups[0]["where"] = Path("here")
    with pytest.warns(StateroomWarning):
        model.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": opt.state_dict()})
    with pytest.warns(StateroomWarning, match=r"param_groups\.0\.where") as seen:
        found = model.state_dict("latest", component="optimizer_state_dict")
    assert seen[0].filename == __file__
    assert found["param_groups"][0]["lr"] == 0.01


class Extra:
    """Something that only weights_only=False loads."""


@pytest.mark.parametrize("size", [1_000, 2_000_000, 12_000_000], ids=["one-request", "parts", "connections"])
@pytest.mark.parametrize("extra", [None, Extra()], ids=["plain", "unsafe"])
@pytest.mark.filterwarnings("ignore:load.. will need weights_only=False")
def test_a_download_of_what_save_sent_is_the_file_as_saved(
    size: int, extra: object, model: Model, tmp_path: Path
) -> None:
    obj = {"model": {"weight": torch.rand(size)}, "epoch": 3, "extra": extra}
    model.save(obj)
    found = torch.load(model.download("latest", tmp_path / "out.pt"), weights_only=extra is None)
    assert torch.equal(found["model"]["weight"], obj["model"]["weight"])
    assert (found["epoch"], type(found["extra"])) == (3, type(extra))


def test_a_download_into_a_folder_is_named_for_its_format(model: Model, tmp_path: Path) -> None:
    model.upload(io.BytesIO(safetensors.torch.save({"w": torch.ones(3)})))
    assert model.download("latest", tmp_path).suffix == ".safetensors"
    as_torch = model.download("latest", tmp_path, "cpu")
    assert as_torch.suffix == ".pt"
    assert torch.equal(torch.load(as_torch)["w"], torch.ones(3))


def test_a_download_is_the_uploaded_file_byte_for_byte(model: Model, tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({"w": torch.randn(100_000), "same": copy.deepcopy(network()).conv1.state_dict()}, file)
    file.seek(0)
    checkpoint = model.upload(file)
    path = model.download("latest", tmp_path / "out.pt")
    assert path.read_bytes() == file.getvalue()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checkpoint.compute_sha256()
    assert [each.name for each in tmp_path.iterdir()] == ["out.pt"]
