"""An ETag promises bytes. Whoever changes what is written raises ``WRITER_REVISION``, and then these digests."""

from hashlib import sha256

import pytest

from app.formats.torch_zip.write import WRITER_REVISION
from tests.deliver.planning import served_file, served_state_dict
from tests.docs import ROOT

UPLOAD = (ROOT / "tests/golden/general.tar").read_bytes()
REVISION = 1

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
}


@pytest.mark.parametrize("what", SERVED)
def test_what_is_served_of_a_file_changes_only_with_the_writers_revision(what: str) -> None:
    serve, digest = SERVED[what]
    assert sha256(serve()).hexdigest()[:32] == digest
    assert WRITER_REVISION == REVISION
