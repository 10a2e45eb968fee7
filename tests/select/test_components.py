from collections.abc import Container

import pytest

from app.errors import SelectionError
from app.select.components import PREFERRED, choose_component
from app.values.dtype import DTYPES
from app.values.manifest import Component, Manifest, Path, Storage, Tensor
from app.values.span import Span


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


def refusal(checkpoint: Manifest, wanted: str | None) -> SelectionError:
    with pytest.raises(SelectionError) as refused:
        choose_component(checkpoint, wanted)
    return refused.value


def test_the_only_component_is_the_default_whatever_its_name() -> None:
    assert choose_component(manifest(("weights_of_mine",)), None) == 0
    assert choose_component(manifest(()), None) == 0
    assert choose_component(manifest(("optimizer_state_dict",), root=True), None) == 0


@pytest.mark.parametrize("name", PREFERRED)
def test_of_several_the_one_that_is_called_like_a_model_is_the_default(name: str) -> None:
    assert choose_component(manifest(("optimizer_state_dict",), ("ema",), (name,)), None) == 2


def test_the_more_telling_name_wins_wherever_it_stands() -> None:
    assert choose_component(manifest(*((name,) for name in reversed(PREFERRED))), None) == len(PREFERRED) - 1


def test_the_only_state_dict_is_the_default_where_no_name_is_telling() -> None:
    found = (("optimizer",), ("model", "state_dict"), ("scheduler",))
    assert choose_component(manifest(*found, optimizers={("optimizer",), ("scheduler",)}), None) == 1
    assert refusal(manifest(*found, optimizers={("optimizer",)}), None).code == "component-ambiguous"


def test_a_telling_name_comes_before_the_only_state_dict() -> None:
    assert choose_component(manifest(("ema",), ("model",), optimizers={("model",)}), None) == 1


def test_a_name_deeper_down_is_no_default() -> None:
    error = refusal(manifest(("a", "model"), ("b", "model")), None)
    assert error.code == "component-ambiguous"


def test_several_without_a_telling_name_are_ambiguous_and_named() -> None:
    error = refusal(manifest(("modelA_state_dict",), ("modelB_state_dict",)), None)
    assert error.code == "component-ambiguous"
    assert error.near == ("modelA_state_dict", "modelB_state_dict")
    assert "'modelA_state_dict', 'modelB_state_dict'" in error.detail


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
