from datetime import UTC, datetime
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.api.requests.selections import SelectionBody
from app.select.query import parse_rename
from stateroom import Checkpoint, Client, InvalidRequest
from stateroom._query import Selection, changes, device_tag, model_path, ref_text, upload_params


def checkpoint(model: str, version: int) -> Checkpoint:
    return Checkpoint(
        model=model,
        version=version,
        run=None,
        epoch=None,
        step=None,
        loss=None,
        format="torch_zip",
        bytes=1,
        new_bytes=1,
        digest="",
        sha256=None,
        created_at=datetime.now(UTC),
    )


@pytest.mark.parametrize("name", ["", "resnet", "a/b/c", "/b", "a/", "../b", "a/..", "./b"])
def test_a_model_name_is_two_parts_that_stay_in_their_place(name: str) -> None:
    with pytest.raises(InvalidRequest, match="namespace/name"):
        model_path(name)


def test_a_model_name_is_quoted() -> None:
    assert model_path("a b/c?d#e") == "/v1/models/a%20b/c%3Fd%23e"


@given(st.text(min_size=1).filter(lambda text: text not in {".", ".."}))
def test_any_ref_is_one_segment_of_a_path(ref: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in ref):
        return
    text = ref_text(ref, "a/b")
    assert unquote(text) == ref
    assert not set(text) & set("/?# ")


def test_a_checkpoint_is_a_ref_of_its_own_model_only() -> None:
    assert ref_text(checkpoint("a/b", 12), "a/b") == "12"
    with pytest.raises(InvalidRequest, match="a/b@12 is not a checkpoint of a/c"):
        ref_text(checkpoint("a/b", 12), "a/c")


@pytest.mark.parametrize("ref", [None, True, 1.5, b"latest", "", ".", ".."])
def test_what_is_no_ref_is_refused(ref: object) -> None:
    with pytest.raises(InvalidRequest):
        ref_text(ref, "a/b")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("map_location", "tag"),
    [
        (None, None),
        ("cpu", "cpu"),
        ("cuda", "cuda"),
        ("cuda:3", "cuda:3"),
        ("meta", "meta"),
        (torch.device("cuda", 1), "cuda:1"),
        (torch.device("cpu"), "cpu"),
        ({"cuda:0": "cpu"}, None),
        (lambda storage, _: storage, None),
        ("privateuseone:0", None),
        ("cuda:0\n", None),
    ],
)
def test_the_server_is_asked_for_plain_devices_only(map_location: object, tag: str | None) -> None:
    assert device_tag(map_location) == tag


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(
    include=st.lists(names, max_size=3),
    rename=st.dictionaries(names.filter(lambda old: "=>" not in old), names, max_size=3),
    prefix=st.none() | names | st.lists(names, max_size=3),
)
def test_the_server_reads_what_was_asked(
    include: list[str], rename: dict[str, str], prefix: str | list[str] | None
) -> None:
    params = Selection(component="", include=include, rename=rename, strip_prefix=prefix).params()
    assert [value for name, value in params if name == "include"] == include
    assert dict(parse_rename(value) for name, value in params if name == "rename") == rename
    assert [value for name, value in params if name == "strip_prefix"] == prefixes_of(prefix)
    body = Selection(component="", include=include, rename=rename, strip_prefix=prefix).body()
    query = SelectionBody(**body).query
    assert (query.component, list(query.include), dict(query.rename), list(query.strip_prefix)) == (
        "",
        include,
        rename,
        prefixes_of(prefix),
    )


def prefixes_of(given: str | list[str] | None) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else given


def test_a_lone_pattern_is_one_pattern() -> None:
    assert Selection(include="conv*").params() == [("include", "conv*")]


def test_a_rename_that_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="=>"):
        Selection(rename={"a=>b": "c"}).params()


@pytest.mark.parametrize("loss", [0.5, np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5], requires_grad=True)])
def test_a_number_may_come_as_whatever_holds_one(loss: object) -> None:
    params = upload_params(
        run=None, epoch=torch.tensor(3), step=np.int64(7), loss=loss, metrics={"acc": loss}, tags=None
    )
    assert params == [("epoch", "3"), ("step", "7"), ("loss", "0.5"), ("metric.acc", "0.5")]


def test_numbers_that_are_not_finite_travel_too() -> None:
    numbers = {"a": float("nan"), "b": float("inf"), "c": -float("inf")}
    params = upload_params(run=None, epoch=None, step=None, loss=None, metrics=numbers, tags=None)
    assert [value for _, value in params] == ["nan", "inf", "-inf"]
    assert changes(numbers | {"d": None}, None)["metrics"] == {"a": "nan", "b": "inf", "c": "-inf", "d": None}


@pytest.mark.parametrize("field", [{"epoch": 1.5}, {"epoch": "many"}, {"loss": "low"}, {"loss": torch.zeros(2)}])
def test_what_is_no_number_is_refused_by_name(field: dict[str, object]) -> None:
    given = {"run": None, "epoch": None, "step": None, "loss": None, "metrics": None, "tags": None, **field}
    with pytest.raises(InvalidRequest, match=next(iter(field))):
        upload_params(**given)  # type: ignore[arg-type]  # that is the point


def test_more_metrics_than_a_url_carries_are_refused_before_anything_is_sent(client: Client, model_name: str) -> None:
    model = client.model(model_name)
    with pytest.raises(InvalidRequest, match=r"5,000 metrics and 0 tags .* update\("):
        model.save({"w": torch.ones(3)}, metrics={f"metric-{i}": i for i in range(5_000)})
    saved = model.save({"w": torch.ones(3)}, metrics={f"metric-{i}": i for i in range(1_000)})
    assert (saved.version, len(saved.metrics)) == (1, 1_000)


def test_a_selection_that_no_url_carries_is_refused(client: Client, model_name: str) -> None:
    model = client.model(model_name)
    model.save({"w": torch.ones(3)})
    with pytest.raises(InvalidRequest, match="split it into smaller requests"):
        model.state_dict("latest", include=[f"layer{i}.weight" for i in range(5_000)])
