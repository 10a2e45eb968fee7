"""An ETag promises bytes. Whoever changes what is written raises ``WRITER_REVISION``, and then these digests."""

from hashlib import sha256

import pytest

from app.formats.torch_zip.write import WRITER_REVISION
from tests.deliver.planning import served_file, served_state_dict
from tests.docs import ROOT

UPLOAD = (ROOT / "tests/golden/general.tar").read_bytes()
REVISION = 1

SERVED = {
    "the whole": (lambda: served_file(UPLOAD), "ba194c6dbe3446c0b85479db96210867"),
    "remapped": (lambda: served_file(UPLOAD, "cuda:1"), "db3d20682c32a106104b1145f4eb6ebd"),
    "the model": (lambda: served_state_dict(UPLOAD), "14617aa4f8e0b9578dc9ea1602312396"),
    "filtered": (lambda: served_state_dict(UPLOAD, include=("2.*",), device="cpu"), "edcc91010ca6f5ad84a12fc865557fa0"),
    "renamed": (
        lambda: served_state_dict(UPLOAD, rename=(("0.", "encoder."),), add_prefix="module."),
        "64767c841345f86d0f7c5ffb77d0b5db",
    ),
    "the optimizer": (
        lambda: served_state_dict(UPLOAD, component="optimizer_state_dict"),
        "8901fba56266fbb6cb82b3124cb231c2",
    ),
}


@pytest.mark.parametrize("what", SERVED)
def test_what_is_served_of_a_file_changes_only_with_the_writers_revision(what: str) -> None:
    serve, digest = SERVED[what]
    assert sha256(serve()).hexdigest()[:32] == digest
    assert WRITER_REVISION == REVISION
