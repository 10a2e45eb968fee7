from collections.abc import Container
from dataclasses import replace

import pytest

from app.errors import SelectionError
from app.select.components import choose_component
from app.values.dtype import DTYPES
from app.values.manifest import Component, Manifest, Path, Storage, Tensor
from app.values.span import Span
from app.values.usual import MODELS


def manifest(*paths: Path, root: bool = False, optimizers: Container[Path] = ()) -> Manifest:
    """A checkpoint of one tensor per component, and with ``root`` one outside them. All but ``optimizers`` are
    state_dicts.
    """
    owners: list[int | None] = [*range(len(paths)), *([None] if root else [])]
    return Manifest(
        format="torch_zip",
        size=100,
        skeleton=Span(0, 10),
        storages=(Storage("0", "cpu", DTYPES["float32"], Span(20, 24)),),
        tensors=tuple(Tensor(owner, ("w",), DTYPES["float32"], (1,), (1,), 0, 0) for owner in owners),
        components=tuple(Component(path, "optimizer" if path in optimizers else "state_dict", 1, 4) for path in paths),
    )


def named_only(checkpoint: Manifest, *numbers: int) -> Manifest:
    components = [replace(each, named_only=number in numbers) for number, each in enumerate(checkpoint.components)]
    return replace(checkpoint, components=tuple(components))


def refusal(checkpoint: Manifest, wanted: str | None) -> SelectionError:
    with pytest.raises(SelectionError) as refused:
        choose_component(checkpoint, wanted)
    return refused.value


def test_the_only_component_is_the_default_whatever_its_name() -> None:
    assert choose_component(manifest(("weights_of_mine",)), None) == 0
    assert choose_component(manifest(()), None) == 0
    assert choose_component(manifest(("optimizer_state_dict",), root=True), None) == 0


@pytest.mark.parametrize("name", MODELS)
def test_of_several_the_one_that_is_called_like_a_model_is_the_default(name: str) -> None:
    assert choose_component(manifest(("optimizer_state_dict",), ("ema",), (name,)), None) == 2


def test_the_more_telling_name_wins_wherever_it_stands() -> None:
    assert choose_component(manifest(*((name,) for name in reversed(MODELS))), None) == len(MODELS) - 1


def test_the_only_state_dict_is_the_default_where_no_name_is_telling() -> None:
    found = (("optimizer",), ("model", "state_dict"), ("scheduler",))
    assert choose_component(manifest(*found, optimizers={("optimizer",), ("scheduler",)}), None) == 1
    assert refusal(manifest(*found, ("ema",), optimizers={("optimizer",)}), None).code == "component-ambiguous"


def test_what_is_called_like_a_model_and_is_an_optimizers_leaves_nothing_to_be_guessed() -> None:
    assert refusal(manifest(("ema",), ("model",), optimizers={("model",)}), None).code == "component-ambiguous"


def test_an_optimizer_is_the_default_where_nothing_else_is() -> None:
    found = manifest(("optimizer",), ("lr_scheduler",), optimizers={("optimizer",)})
    assert choose_component(found, None) == 0
    two = manifest(("optimizer_g",), ("optimizer_d",), optimizers={("optimizer_g",), ("optimizer_d",)})
    assert refusal(two, None).code == "component-ambiguous"
    assert refusal(named_only(manifest(("optimizer",), optimizers={("optimizer",)}), 0), None).near == ("optimizer",)


@pytest.mark.parametrize("name", ["lr_scheduler", "scaler", "optimizer_g", "grad_scaler_state_dict"])
def test_what_only_trains_a_model_does_not_stand_beside_it(name: str) -> None:
    assert choose_component(manifest((name,), ("generator",)), None) == 1


def test_what_is_only_meant_by_name_is_no_default() -> None:
    found = manifest(("callbacks", "best"), ("generator",))
    assert choose_component(named_only(found, 0), None) == 1
    assert refusal(named_only(found, 0, 1), None).code == "component-ambiguous"
    assert choose_component(named_only(found, 0, 1), "callbacks.best") == 0


def test_a_name_deeper_down_is_no_default() -> None:
    error = refusal(manifest(("a", "model"), ("b", "model")), None)
    assert error.code == "component-ambiguous"


def test_several_without_a_telling_name_are_ambiguous_and_named() -> None:
    error = refusal(manifest(("modelA_state_dict",), ("modelB_state_dict",)), None)
    assert error.code == "component-ambiguous"
    assert error.near == ("modelA_state_dict", "modelB_state_dict")
    assert "'modelA_state_dict' (4 bytes), 'modelB_state_dict' (4 bytes)" in error.detail


def test_a_dotted_path_names_a_component_inside_others() -> None:
    checkpoint = manifest(("ensemble", 0, "net"), ("ensemble", 1, "net"))
    assert choose_component(checkpoint, "ensemble.1.net") == 1


def test_two_components_that_are_written_alike_are_ambiguous() -> None:
    error = refusal(manifest(("a", "b"), ("a.b",), ("c",)), "a.b")
    assert error.code == "component-ambiguous"
    assert "['a', 'b']" in error.detail
    assert choose_component(manifest(("a", "b"), ("a.b",), ("c",)), "c") == 2


def test_an_unknown_component_comes_with_those_that_are_close() -> None:
    error = refusal(manifest(("model_state_dict",), ("optimizer_state_dict",)), "Model_statedict")
    assert error.code == "unknown-component"
    assert error.near[0] == "model_state_dict"


def test_the_empty_name_is_a_flat_file_or_the_roots_rest() -> None:
    assert choose_component(manifest(()), "") == 0
    assert choose_component(manifest(("model",), root=True), "") is None
    assert refusal(manifest(("model",)), "").code == "unknown-component"


def test_tensors_without_any_component_are_the_default() -> None:
    assert choose_component(manifest(root=True), None) is None
    assert choose_component(manifest(root=True), "") is None
