"""Warm starts of models with other shapes and dtypes: the corners, as torch slices them, and no byte more is sent."""

import pytest
import torch
from torch import nn

from stateroom import Client, Mismatch, Model, NoKeysMatched, Report
from tests.support.server import Server
from tests.support.waiting import assert_soon

SLACK = 64 * 1024


class Text(nn.Module):
    """Words at positions, and a head over classes."""

    def __init__(self, words: int = 3000, positions: int = 128, classes: int = 40, width: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.randn(1, positions, width))
        self.body = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)
        self.register_buffer("order", torch.randn(width, 50).t())


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def sent(server: Server, model: Model) -> int:
    """Return the bytes of the tensors that were sent of the model, once those of a download are all counted."""

    def bodies() -> list[int]:
        ours = [
            each for each in server.requests if model.name in each["path"] and each["route"].endswith("/state_dict")
        ]
        return [each["bytes_out"] for each in ours]

    assert_soon(lambda: bodies() != [])
    return sum(bodies())


def corner_of(saved: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The tensor that a warm start makes of its own."""
    made = own.clone()
    corner = tuple(slice(min(sizes)) for sizes in zip(saved.shape, own.shape, strict=True))
    made[corner] = saved[corner].to(own.dtype)
    return made


@pytest.mark.parametrize("sizes", [{"words": 3500, "positions": 200}, {"words": 900, "classes": 3}, {"width": 100}])
def test_a_model_of_other_sizes_gets_the_corners_and_keeps_the_rest(model: Model, sizes: dict[str, int]) -> None:
    saved = Text().state_dict()
    model.save(saved)
    net = Text(**sizes)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    addresses = {key: tensor.data_ptr() for key, tensor in net.state_dict().items()}
    report = model.warmstart(net, "latest", resize="slice")
    resized = {key for key in saved if saved[key].shape != before[key].shape}
    assert {each.key for each in report.resized_keys} == resized
    assert set(report.matched_keys) == set(saved) - resized
    assert report.mismatched_keys == report.missing_keys == ()
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, corner_of(saved[key], before[key])), key
    assert addresses == {key: tensor.data_ptr() for key, tensor in net.state_dict().items()}


def test_only_the_bytes_of_the_corners_travel(server: Server, model: Model) -> None:
    saved = {"words": torch.randn(5000, 256), "columns": torch.randn(2000, 600), "turned": torch.randn(500, 900).t()}
    model.save(saved)
    net = nn.Module()
    shapes = {"words": (700, 256), "columns": (2500, 10), "turned": (100, 500)}
    for key, shape in shapes.items():
        net.register_buffer(key, torch.zeros(shape))
    report = model.warmstart(net, "latest", resize="slice")
    assert report.resized_keys[0] == Mismatch("words", (5000, 256), (700, 256))
    size = 4 * (700 * 256 + 2000 * 10 + 100 * 500)
    assert report.bytes == size
    assert sent(server, model) <= 1.02 * size + SLACK
    for key, shape in shapes.items():
        assert torch.equal(getattr(net, key), corner_of(saved[key], torch.zeros(shape))), key


def test_a_smaller_dtype_of_the_model_travels_and_gives_the_same_numbers(server: Server, model: Model) -> None:
    model.save({"w": torch.randn(700, 500), "norm": torch.randn(500), "ids": torch.arange(9)})
    nets = []
    for _ in range(2):
        net = nn.Module()
        net.register_buffer("w", torch.zeros(600, 500, dtype=torch.bfloat16))
        net.register_buffer("norm", torch.zeros(500))
        net.register_buffer("ids", torch.zeros(9, dtype=torch.int32))
        nets.append(net)
    report = model.warmstart(nets[0], "latest", resize="slice", dtype="target")
    assert sent(server, model) <= 1.02 * (600 * 500 * 2 + 500 * 4 + 72) + SLACK
    plain = model.warmstart(nets[1], "latest", resize="slice")
    assert report == plain
    assert report.cast_keys == ("ids",)
    for key, tensor in nets[0].state_dict().items():
        assert torch.equal(tensor, nets[1].state_dict()[key]), key
    half = nn.Module()
    half.register_buffer("norm", torch.zeros(500))
    model.warmstart(half, "latest", dtype=torch.float16)
    assert torch.equal(half.norm, nets[0].norm.half().float())


def test_without_resize_a_report_is_what_it_was(model: Model) -> None:
    model.save(Text().state_dict())
    net = Text(classes=3)
    report = model.warmstart(net, "latest")
    assert [each.key for each in report.mismatched_keys] == ["head.weight", "head.bias"]
    assert report.resized_keys == ()


def test_what_has_other_dimensions_or_nothing_in_common_is_mismatched(model: Model) -> None:
    model.save({"a": torch.ones(3, 4), "b": torch.ones(0, 4), "c": torch.ones(2), "packed": torch.ones(5)})
    net = nn.Module()
    for key, shape in {"a": (3, 4, 1), "b": (2, 4), "c": (2,)}.items():
        net.register_buffer(key, torch.zeros(shape))
    report = model.warmstart(net, "latest", resize="slice")
    assert [each.key for each in report.mismatched_keys] == ["a", "b"]
    assert report.matched_keys == ("c",)
    with pytest.raises(NoKeysMatched):
        model.warmstart(net, "latest", resize="slice", exclude="c")


def test_corners_alone_are_enough_and_prefixes_are_reconciled(model: Model) -> None:
    model.save({"module.w": torch.arange(12.0).view(4, 3)})
    net = nn.Module()
    net.register_buffer("w", torch.zeros(2, 5))
    report = model.warmstart(net, "latest", resize="slice")
    assert report.prefix == "module."
    assert torch.equal(net.w[:, :3], torch.arange(6.0).view(2, 3))
    assert str(report).startswith(
        f"{model.name}@1: 1 of 1 keys loaded, 24 bytes\n  resized: w ([4, 3] there, [2, 5] here)"
    )
    assert ">resized<" in Report._repr_html_(report)


def test_tied_weights_stay_tied(model: Model) -> None:
    weight = torch.randn(6, 4)
    model.save({"embed.weight": weight, "head.weight": weight})
    net = nn.ModuleDict({"embed": nn.Embedding(9, 4), "head": nn.Linear(4, 9, bias=False)})
    net["head"].weight = net["embed"].weight
    rest = net["head"].weight[6:].clone()
    model.warmstart(net, "latest", resize="slice")
    assert net["head"].weight is net["embed"].weight
    assert torch.equal(net["head"].weight, torch.cat([weight, rest]))
