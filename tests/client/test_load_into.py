"""Loading into existing models: mismatches are found before the download, and failures are reported after it."""

from itertools import pairwise

import httpx
import pytest
import torch
from torch import nn

from stateroom import (
    Client,
    InvalidRequest,
    Mismatch,
    Model,
    NoKeysMatched,
    PartialLoadError,
    ServerUnavailable,
    StateDictMismatch,
)
from tests.client.conftest import Answer, ScriptedServer, Seen, StartScripted
from tests.support.server import Server

PASSED_ON = ("content-type", "etag", "accept-ranges", "content-range", "stateroom-checkpoint")


class Relay:
    """Passes requests on to a real server, but those for which ``broken(path)`` is true."""

    def __init__(self, server: Server) -> None:
        self.url = server.base_url
        self.broken = lambda _: False

    def __call__(self, request: Seen) -> Answer:
        if self.broken(request.path):
            return Answer(503, headers={"Retry-After": "0"})
        content = request.body or None
        asked = {name: value for name, value in request.headers.items() if name in {"Range", "If-Range"}}
        options = {"headers": asked, "content": content, "timeout": 60, "trust_env": False, "verify": False}
        answer = httpx.request(request.method, self.url + request.path, **options)
        headers = {name.title(): value for name, value in answer.headers.items() if name in PASSED_ON}
        return Answer(answer.status_code, answer.content, headers)


@pytest.fixture
def relay(server: Server) -> Relay:
    return Relay(server)


@pytest.fixture
def watched(relay: Relay, scripted: StartScripted) -> ScriptedServer:
    """The shared server, with every request seen and some lost."""
    return scripted(relay)


@pytest.fixture
def model(watched: ScriptedServer, model_name: str) -> Model:
    return Client(watched.url, retries=0).model(model_name)


def downloads(watched: ScriptedServer) -> list[str]:
    """Of tensors: an index has none."""
    paths = [request.path for request in watched.seen if "/index" not in request.path]
    return [path for path in paths if "/state_dict" in path or "/file" in path]


def filled(value: float, *sizes: int) -> nn.Sequential:
    net = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
    for parameter in net.parameters():
        nn.init.constant_(parameter, value)
    return net


def values(module: nn.Module) -> set[float]:
    return {float(x) for parameter in module.parameters() for x in parameter.detach().flatten()}


# Warm start


def test_a_warm_start_loads_what_fits_and_reports_the_rest(model: Model, watched: ScriptedServer) -> None:
    model.save({"model_state_dict": filled(1.0, 3, 4, 5, 7).state_dict()})
    net = nn.Sequential(*filled(0.0, 3, 4, 5, 2), nn.Linear(2, 2))
    report = model.warmstart(net, "latest")
    assert report.checkpoint == f"{model.name}@1"
    assert report.matched_keys == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert report.missing_keys == ("3.weight", "3.bias")
    assert report.unexpected_keys == ()
    assert report.mismatched_keys == (Mismatch("2.weight", (7, 5), (2, 5)), Mismatch("2.bias", (7,), (2,)))
    assert report.bytes == 4 * (12 + 4 + 20 + 5)
    assert values(net[:2]) == {1.0}
    assert values(net[2]) == {0.0}
    assert "4 of 8 keys" in str(report)
    assert "2.weight ([7, 5] there, [2, 5] here)" in str(report)
    assert len(downloads(watched)) == 1


def test_a_warm_start_writes_into_the_models_own_memory(model: Model) -> None:
    model.save({"model_state_dict": filled(1.5, 3, 4).state_dict()})
    net = filled(0.0, 3, 4).to(torch.bfloat16)
    before = [(parameter, parameter.data_ptr()) for parameter in net.parameters()]
    report = model.warmstart(net, "latest")
    assert report.cast_keys == ("0.weight", "0.bias")
    for (parameter, pointer), now in zip(before, net.parameters(), strict=True):
        assert parameter is now
        assert now.data_ptr() == pointer
        assert now.dtype == torch.bfloat16
        assert now.requires_grad
    assert values(net) == {1.5}


def test_a_warm_start_from_the_chosen_keys_under_other_names(model: Model) -> None:
    model.save({f"module.{key}": value for key, value in filled(1.0, 3, 3, 3).state_dict().items()})
    net = nn.ModuleDict({"stem": filled(0.0, 3, 3), "head": filled(0.0, 3, 3)})
    report = model.warmstart(net, "latest", strip_prefix="module.", include=["0.*"], rename={"0.": "stem.0."})
    assert report.matched_keys == ("stem.0.weight", "stem.0.bias")
    assert report.missing_keys == ("head.0.weight", "head.0.bias")
    assert (values(net["stem"]), values(net["head"])) == ({1.0}, {0.0})


def test_tied_weights_of_the_model_stay_tied(model: Model) -> None:
    model.save({"0.weight": torch.ones(3, 3), "1.weight": torch.ones(3, 3)})
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    model.warmstart(net, "latest")
    assert net[1].weight is net[0].weight
    assert values(net) == {1.0}


def test_a_warm_start_from_nothing_is_an_error_and_fetches_nothing(model: Model, watched: ScriptedServer) -> None:
    model.save({"model_state_dict": filled(1.0, 3, 4).state_dict()})
    net = nn.Conv2d(1, 1, 1)
    before = net.weight.clone()
    with pytest.raises(NoKeysMatched, match="missing: weight, bias"):
        model.warmstart(net, "latest")
    assert torch.equal(net.weight, before)
    assert downloads(watched) == []


def test_wrapped_targets_are_loaded_like_what_they_wrap(model: Model) -> None:
    model.save({"model_state_dict": filled(1.0, 3, 4).state_dict()})
    net = filled(0.0, 3, 4)
    assert model.warmstart(nn.DataParallel(net), "latest").missing_keys == ()
    assert values(net) == {1.0}
    net = filled(0.0, 3, 4)
    assert model.load_into(torch.compile(net, backend="eager"), "latest").missing_keys == ()
    assert values(net) == {1.0}


class Unwilling(nn.Linear):
    def load_state_dict(self, *_args: object, **_options: object) -> None:
        raise RuntimeError("not now")


def test_a_warm_start_that_fails_at_the_last_step_says_what_may_be_missing(model: Model) -> None:
    model.save(nn.Linear(3, 4).state_dict())
    with pytest.raises(PartialLoadError, match="not now") as failed:
        model.warmstart(Unwilling(3, 4), "latest")
    assert (failed.value.loaded, failed.value.remaining) == ((), ("weight", "bias"))


# load_into


def saved_pair(model: Model) -> None:
    net = filled(1.0, 3, 4)
    opt = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 3)).sum().backward()
    opt.step()
    for parameter in net.parameters():
        nn.init.constant_(parameter, 1.0)
    model.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": opt.state_dict()})


def test_a_strict_load_that_fits_is_complete(model: Model) -> None:
    model.save({"model_state_dict": filled(1.0, 3, 4, 5).state_dict()})
    net = filled(0.0, 3, 4, 5)
    report = model.load_into(net, "latest")
    assert report.matched_keys == tuple(net.state_dict())
    assert values(net) == {1.0}


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((3, 4, 5, 6), 'Missing key.*"2.weight", "2.bias"'),
        ((3, 4), 'Unexpected key.*"1.weight", "1.bias"'),
        ((3, 4, 6), r"size mismatch for 1.weight: .*\[5, 4\].*\[6, 4\]"),
    ],
)
def test_what_torch_would_refuse_is_refused_before_a_byte_is_fetched(
    sizes: tuple[int, ...], reason: str, model: Model, watched: ScriptedServer
) -> None:
    state = filled(1.0, 3, 4, 5).state_dict()
    model.save({"model_state_dict": state})
    net = filled(0.0, *sizes)
    with pytest.raises(RuntimeError, match=reason):
        net.load_state_dict(state)
    net = filled(0.0, *sizes)
    with pytest.raises(StateDictMismatch, match=reason):
        model.load_into(net, "latest")
    assert downloads(watched) == []
    assert values(net) == {0.0}


def test_without_strict_what_fits_is_loaded(model: Model) -> None:
    model.save({"model_state_dict": filled(1.0, 3, 4, 5).state_dict()})
    net = filled(0.0, 3, 4)
    report = model.load_into(net, "latest", strict=False)
    assert report.unexpected_keys == ("1.weight", "1.bias")
    assert values(net) == {1.0}
    with pytest.raises(StateDictMismatch, match="size mismatch"):
        model.load_into(filled(0.0, 4, 4), "latest", strict=False)


class Counting(nn.Module):
    """A module with extra state beside its tensors."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.count = count

    def get_extra_state(self) -> dict[str, int]:
        return {"count": self.count}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def test_extra_state_is_loaded_too_and_missed_when_it_is_not_there(model: Model) -> None:
    model.save({"model_state_dict": Counting(7).state_dict()})
    net = Counting(0)
    model.load_into(net, "latest")
    assert net.count == 7
    state = Counting(7).state_dict()
    del state["_extra_state"]
    model.save({"model_state_dict": state})
    before = net.fc.weight.clone()
    with pytest.raises(StateDictMismatch, match=r"Missing.*_extra_state"):
        model.load_into(net, "latest")
    assert torch.equal(net.fc.weight, before)


class WithBuffer(nn.Module):
    """A module with a buffer that is not one stretch of numbers."""

    def __init__(self, value: float, kind: str) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2, bias=False)
        nn.init.constant_(self.fc.weight, value)
        dense = torch.eye(3) * value
        if kind == "sparse":
            self.register_buffer("mask", dense.to_sparse())
        elif kind == "csr":
            self.register_buffer("mask", dense.to_sparse_csr())
        else:
            self.register_buffer("mask", torch.quantize_per_tensor(dense, 0.5, 0, torch.qint8))

    def mask_values(self) -> torch.Tensor:
        return self.mask.dequantize() if self.mask.is_quantized else self.mask.to_dense()


odd_buffers = pytest.mark.parametrize("kind", ["sparse", "csr", "quantized"])
quiet = pytest.mark.filterwarnings(
    "ignore:torch.quantize_per_tensor", "ignore:TypedStorage is deprecated", "ignore:Sparse"
)


@odd_buffers
@quiet
def test_sparse_and_quantized_buffers_are_loaded_when_all_must_be_there(kind: str, model: Model) -> None:
    model.save({"model_state_dict": WithBuffer(1.0, kind).state_dict()})
    net = WithBuffer(2.0, kind)
    report = model.load_into(net, "latest")
    assert (report.matched_keys, report.missing_keys, report.skipped_keys) == (("fc.weight", "mask"), (), ())
    assert torch.equal(net.mask_values(), torch.eye(3))
    assert values(net) == {1.0}


@odd_buffers
@quiet
def test_sparse_and_quantized_buffers_are_else_skipped_and_named(kind: str, model: Model) -> None:
    model.save({"model_state_dict": WithBuffer(1.0, kind).state_dict()})
    net = WithBuffer(2.0, kind)
    for report in (model.warmstart(net, "latest"), model.load_into(net, "latest", strict=False)):
        assert (report.matched_keys, report.missing_keys, report.skipped_keys) == (("fc.weight",), (), ("mask",))
        assert str(report).endswith("skipped: mask")
    assert torch.equal(net.mask_values(), 2 * torch.eye(3))
    assert values(net) == {1.0}


@quiet
def test_a_sparse_buffer_that_is_not_there_is_missed_before_anything_is_touched(model: Model) -> None:
    state = WithBuffer(1.0, "sparse").state_dict()
    del state["mask"]
    model.save({"model_state_dict": state})
    net = WithBuffer(2.0, "sparse")
    with pytest.raises(StateDictMismatch, match=r"Missing.*mask"):
        model.load_into(net, "latest")
    assert values(net) == {2.0}


@pytest.mark.parametrize("staged", [False, True])
def test_model_and_optimizer_are_loaded_together(staged: bool, model: Model) -> None:
    saved_pair(model)
    net = filled(0.0, 3, 4)
    opt = torch.optim.Adam(net.parameters(), lr=1.0)
    targets = {"model_state_dict": net, "optimizer_state_dict": opt}
    report = model.load_into(targets, "latest", staged=staged)
    assert report.matched_keys == ("model_state_dict.0.weight", "model_state_dict.0.bias", "optimizer_state_dict")
    assert values(net) == {1.0}
    assert opt.param_groups[0]["lr"] == 0.001
    assert set(opt.state) == set(net.parameters())


def test_an_optimizer_of_another_shape_is_refused_before_a_byte_is_fetched(
    model: Model, watched: ScriptedServer
) -> None:
    saved_pair(model)
    net = filled(0.0, 3, 4)
    with pytest.raises(StateDictMismatch, match=r"\[2\] parameters, but the optimizer has groups with \[1\]"):
        model.load_into({"model_state_dict": net, "optimizer_state_dict": torch.optim.SGD([net[0].bias])}, "latest")
    assert downloads(watched) == []


def test_what_fails_between_two_targets_says_what_is_in_place(model: Model, relay: Relay) -> None:
    saved_pair(model)
    net = filled(0.0, 3, 4)
    targets = {"model_state_dict": net, "optimizer_state_dict": torch.optim.Adam(net.parameters())}
    relay.broken = lambda path: "/state_dict?component=optimizer" in path
    with pytest.raises(PartialLoadError) as failed:
        model.load_into(targets, "latest")
    assert failed.value.loaded == ("model_state_dict.0.weight", "model_state_dict.0.bias")
    assert failed.value.remaining == ("optimizer_state_dict",)
    assert isinstance(failed.value.__cause__, ServerUnavailable)
    assert values(net) == {1.0}


def test_a_staged_load_that_fails_on_the_way_touches_nothing(model: Model, relay: Relay) -> None:
    saved_pair(model)
    net = filled(0.0, 3, 4)
    targets = {"model_state_dict": net, "optimizer_state_dict": torch.optim.Adam(net.parameters())}
    relay.broken = lambda path: "/state_dict?component=optimizer" in path
    with pytest.raises(ServerUnavailable):
        model.load_into(targets, "latest", staged=True)
    assert values(net) == {0.0}


def test_a_load_that_fails_before_anything_was_touched_is_the_error_itself(model: Model, relay: Relay) -> None:
    saved_pair(model)
    relay.broken = lambda path: "/state_dict" in path
    with pytest.raises(ServerUnavailable):
        model.load_into({"model_state_dict": filled(0.0, 3, 4)}, "latest")


class Stubborn(torch.optim.SGD):
    def load_state_dict(self, state_dict: object) -> None:
        raise ValueError("not now")


def test_a_target_that_refuses_its_state_is_a_partial_load(model: Model) -> None:
    saved_pair(model)
    net = filled(0.0, 3, 4)
    targets = {"model_state_dict": net, "optimizer_state_dict": Stubborn(net.parameters())}
    with pytest.raises(PartialLoadError, match="not now") as failed:
        model.load_into(targets, "latest", staged=True)
    assert failed.value.remaining == ("optimizer_state_dict",)


@pytest.mark.parametrize("target", [{"a": 1}, [], torch.zeros(1), {"model_state_dict": torch.zeros(1)}])
def test_what_is_no_target_is_refused(target: object, model: Model) -> None:
    saved_pair(model)
    with pytest.raises(InvalidRequest, match="a module or an optimizer"):
        model.load_into(target, "latest")  # type: ignore[arg-type]  # that is the point


def test_a_bare_optimizer_is_told_where_it_goes(model: Model) -> None:
    saved_pair(model)
    with pytest.raises(InvalidRequest, match="in a dict, under its component's name"):
        model.load_into(torch.optim.SGD(filled(0.0, 3, 4).parameters()), "latest")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # torch's own: of quantization
def test_a_quantized_model_takes_its_packed_weights_back(model: Model) -> None:
    def network() -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), {nn.Linear})

    net, batch = network(), torch.ones(1, 8)
    model.save({"epoch": 3, "model_state_dict": net.state_dict(), "ema": {"note": "x", "w": torch.ones(1)}})
    for into in (lambda other: {"model_state_dict": other}, lambda other: other):
        other = network()
        model.load_into(into(other), "latest")
        assert torch.equal(other(batch), net(batch))


class WithNotes(nn.Linear):
    """Saves a dict beside its tensors, and takes it back."""

    notes: object = None

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "notes"] = self.notes

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: object) -> None:
        self.notes = state_dict.pop(prefix + "notes", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)


@pytest.mark.parametrize("notes", [{"heads": 3}, "row", [1, 2], {"amax": torch.ones(2)}, None], ids=repr)
def test_what_a_module_saves_beside_its_tensors_goes_back_into_it(model: Model, notes: object) -> None:
    net = WithNotes(2, 2)
    net.notes = notes
    model.save({"model": net.state_dict(), "ema": nn.Linear(2, 2).state_dict()})
    other = WithNotes(2, 2)
    model.load_into({"model": other}, "latest")
    assert torch.equal(other.weight, net.weight)
    assert str(other.notes) == str(notes)
