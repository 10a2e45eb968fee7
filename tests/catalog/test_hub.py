from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.catalog import Catalog, hub, packs, xorbs
from app.errors import PreconditionFailed
from app.values.checkpoint import ModelName
from app.values.draft import DraftFile
from app.values.hub import KeptXorb, Xorb
from tests.catalog.make import begin_pack

SHA256 = "ab" * 32
MODEL = ModelName("vision", "drafted")


def test_a_file_that_was_sent_ahead_outlives_a_server_and_goes_with_its_pack(catalog: Catalog):
    pack, other = begin_pack(catalog, []), begin_pack(catalog, [])
    with catalog.write("vision") as w:
        assert hub.stage(w, "vision", SHA256, 5, pack.name)
    with catalog.write("vision") as w:
        assert not hub.stage(w, "vision", SHA256, 5, other.name)
    with catalog.write() as w:
        packs.finish_all(w)
    with catalog.read() as s:
        assert {sha256: each.pack for sha256, each in hub.staged(s, "vision", [SHA256]).items()} == {SHA256: pack.name}
        assert hub.staged_bytes(s, "vision") == 5
        assert hub.staged(s, "audio", [SHA256]) == {}
        assert packs.abandoned(s, datetime.now(UTC) + timedelta(hours=1)) == (other.name,)
    later = datetime.now(UTC) + timedelta(days=2)
    with catalog.write() as w:
        assert set(packs.give_up(w, later, [pack.name])) == {pack.name}
    with catalog.read() as s:
        assert hub.staged(s, "vision", [SHA256]) == {}
    with catalog.write("vision") as w:  # its bytes are about to be deleted, so it has to be sent again
        fresh = begin_pack_in(w)
        assert hub.stage(w, "vision", SHA256, 5, fresh)
    with catalog.write() as w:
        assert packs.forget(w, pack.name)
    with catalog.read() as s:
        assert hub.staged(s, "vision", [SHA256])[SHA256].pack == fresh
    with catalog.write() as w:
        packs.give_up(w, later, [fresh])
        assert packs.forget(w, fresh)
    with catalog.read() as s:
        assert hub.staged_bytes(s, "vision") == 0


def test_a_xorb_outlives_a_server_and_goes_with_its_pack(catalog: Catalog):
    xorb, hour = Xorb("a session", SHA256, 5, 2), timedelta(hours=1)
    pack, other, third = (begin_pack(catalog, []).name for _ in range(3))
    with catalog.write("vision") as w:
        assert xorbs.keep(w, "vision", xorb, pack)
        assert not xorbs.keep(w, "vision", xorb, other)
        assert xorbs.keep(w, "vision", replace(xorb, session="another"), third)
    with catalog.write() as w:
        packs.finish_all(w)
    with catalog.read() as s:
        assert xorbs.kept(s, "vision", "a session", [SHA256]) == {SHA256: KeptXorb(5, 2, pack)}
        assert xorbs.kept(s, "audio", "a session", [SHA256]) == xorbs.kept(s, "vision", "none", [SHA256]) == {}
        assert xorbs.unused_bytes(s, "vision") == 10
        assert packs.abandoned(s, datetime.now(UTC) + hour) == (other,)
    with catalog.write("vision") as w:
        xorbs.use(w, "vision", "a session", [SHA256])
    with catalog.read() as s:
        assert xorbs.unused_bytes(s, "vision") == 5
        assert xorbs.kept(s, "vision", "a session", [SHA256]).keys() == {SHA256}
        later = datetime.now(UTC) + 2 * hour
        assert packs.abandoned(s, later) == (pack, other)
    with catalog.write() as w:
        packs.give_up(w, later, [pack])
    with catalog.write("vision") as w:
        xorbs.use(w, "vision", "a session", [SHA256])  # does not bring it back
        assert xorbs.kept(w, "vision", "a session", [SHA256]) == {}
        assert xorbs.keep(w, "vision", xorb, begin_pack_in(w))
        assert packs.forget(w, pack)
        assert xorbs.kept(w, "vision", "a session", [SHA256])[SHA256].pack == "fresh"


def begin_pack_in(w) -> str:
    packs.begin(w, "fresh", 60)
    return "fresh"


def test_a_draft_that_somebody_else_changed_is_not_changed(catalog: Catalog):
    with catalog.write("vision") as w:
        hub.begin_draft(w, MODEL)
    with catalog.read() as s:
        before = hub.find_draft(s, MODEL)
    assert before is not None
    files = {"README.md": DraftFile(5, b"hello"), "vocab.json": DraftFile(10**7, sha256=SHA256)}
    with catalog.write("vision") as w:
        after = hub.change_draft(w, before, files)
    with catalog.read() as s:
        assert hub.find_draft(s, MODEL) == after
    assert after.commit != before.commit
    with catalog.write("vision") as w, pytest.raises(PreconditionFailed):
        hub.change_draft(w, before, {})
