"""An ETag promises bytes: a change of the written bytes needs a new revision of the writer, and new digests here."""

from hashlib import sha256
from typing import Any

import pytest

from app.deliver.plan import Wanted
from app.formats.safetensors.write import WRITER_REVISION as SAFETENSORS_REVISION
from app.formats.torch_zip.write import WRITER_REVISION
from app.select.query import StateDictQuery
from tests.deliver.planning import materialise, planned, served_file, served_state_dict
from tests.hostile.make import tensor, text, with_tensor
from tests.support.docs import ROOT

UPLOAD = (ROOT / "tests/golden/general.tar").read_bytes()
REVISION = 1
SAFETENSORS = 2

SERVED = {
    "the whole": (lambda: served_file(UPLOAD), "b8e3013081fb8cd883ca4f67f47724f7"),
    "remapped": (lambda: served_file(UPLOAD, "cuda:1"), "09fe1caf8e730af0eab3fc999a511048"),
    "the model": (lambda: served_state_dict(UPLOAD), "49895888256b5035b999fd16383e908a"),
    "filtered": (lambda: served_state_dict(UPLOAD, include=("2.*",), device="cpu"), "5d8d663e441898c971602c1655bc0431"),
    "renamed": (
        lambda: served_state_dict(UPLOAD, rename=(("0.", "encoder."),), add_prefix="module."),
        "e76700f385cf19d549c50eb41945615e",
    ),
    "the optimizer": (
        lambda: served_state_dict(UPLOAD, component="optimizer_state_dict"),
        "2da30cc0e4270e78b440c14ce21c624f",
    ),
    "safetensors": (lambda: served_state_dict(UPLOAD, format="safetensors"), "866c55f2976db3e39296abdb0d79176e"),
    "the optimizer as safetensors": (
        lambda: served_state_dict(UPLOAD, component="optimizer_state_dict", format="safetensors"),
        "b6a5cdd8722235b549368e94e4cb32ba",
    ),
    "cast": (
        lambda: served_state_dict(UPLOAD, dtype="bf16", dtype_exclude=("1.*",)),
        "696fe30837637bbf930b325d6bb5a7bd",
    ),
    "cast safetensors": (
        lambda: served_state_dict(UPLOAD, dtype="fp16", format="safetensors"),
        "05d3b7209bb0227493207cbf272312fb",
    ),
}


@pytest.mark.parametrize("what", SERVED)
def test_what_is_served_of_a_file_changes_only_with_the_writers_revision(what: str) -> None:
    serve, digest = SERVED[what]
    assert sha256(serve()).hexdigest()[:32] == digest
    assert WRITER_REVISION == REVISION
    assert SAFETENSORS_REVISION == SAFETENSORS


ON_XLA = with_tensor(
    b"ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n("
    + tensor()
    + b"ctorch\nfloat32\n"
    + text("xla:0")
    + b"\x89tR"
)
WITH_AN_OBJECT = with_tensor(b"cmine\nNet\n)R")


def part(**query: Any) -> Wanted:
    return Wanted(query=StateDictQuery(**query))


RULES = {
    "on a device": (ON_XLA, Wanted(device="cpu"), "plan on devices 2", "3e077ae0e2fac37d1b58646a6c4be5bd"),
    "a state_dict on a device": (ON_XLA, part(device="cpu"), "plan on devices 2", "c743b80fd18a5ff3bc5d529708d6695d"),
    "cast": (ON_XLA, part(dtype="float16"), "plan on devices 2", "ff0837ce88fd70f42b602cc98cd173f4"),
    "without an object": (WITH_AN_OBJECT, part(), "plan without 2", "87ac916181803f587fa33c06f2d94bad"),
}


@pytest.mark.parametrize("what", RULES)
def test_what_is_served_by_a_rule_of_its_own_changes_only_with_the_revision_of_that(what: str) -> None:
    upload, wanted, rules, digest = RULES[what]
    made = planned(upload, wanted)
    assert sha256(materialise(made, upload)).hexdigest()[:32] == digest
    assert made.rules == rules
