"""An ETag promises bytes: a change of the written bytes needs a new revision of the writer, and new digests here."""

from hashlib import sha256

import pytest

from app.formats.safetensors.write import WRITER_REVISION as SAFETENSORS_REVISION
from app.formats.torch_zip.write import WRITER_REVISION
from tests.deliver.planning import served_file, served_state_dict
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
