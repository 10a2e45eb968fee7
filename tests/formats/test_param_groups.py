"""param_groups as JSON, whatever an optimizer put into them."""

import json

import pytest

from app.errors import HostileCheckpoint
from app.formats import param_groups
from app.formats.param_groups import param_groups_json
from app.formats.pickle.nodes import Call, Dict, Global
from app.values.work import Work


def shown(groups: object, work: Work | None = None) -> object:
    return json.loads(param_groups_json(Dict([("state", Dict()), ("param_groups", groups)]), work or Work()))


def test_plain_values_are_shown_as_they_are():
    group = Dict([("lr", 0.1), ("betas", (0.9, 0.999)), ("amsgrad", False), ("foreach", None), ("params", [0, 1])])
    assert shown([group]) == [{"lr": 0.1, "betas": [0.9, 0.999], "amsgrad": False, "foreach": None, "params": [0, 1]}]


def test_what_json_has_no_word_for_is_named():
    odd = Call(Global("custom", "Schedule"), ())
    assert shown(
        [Dict([("odd", odd), ("class", Global("torch", "float32")), ("nan", float("nan")), ("raw", b"x")])]
    ) == [{"odd": "<custom.Schedule>", "class": "<torch.float32>", "nan": None, "raw": "<bytes>"}]


def test_lists_that_share_each_other_end_all_the_same():
    bomb: list[object] = [1] * 1000
    for _ in range(7):
        bomb = [bomb] * 1000
    assert len(json.dumps(shown(bomb, Work(10**9)))) < 20 * param_groups.MAX_VALUES
    with pytest.raises(HostileCheckpoint) as refused:
        shown(bomb)
    assert refused.value.rule == "too-much-work"
