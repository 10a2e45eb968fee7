"""What a crash leaves is gone after the next start, and nothing else is."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.catalog import packs
from app.store import LocalPackStore, Spool
from app.upkeep.leftovers import remove_leftovers
from app.values.span import Span
from tests.ingest.workplace import Workplace, chunked, torch_file, weights


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace.at(tmp_path / "data", tmp_path / "catalog.sqlite3")
    yield place
    place.close()


def clean_up(place: Workplace) -> None:
    """As a server does that has just started."""
    spool = Spool(place.folder / "spool")
    remove_leftovers(place.catalog, LocalPackStore(place.folder, durable=True), spool)
    spool.close()


def test_an_upload_that_was_spooled_and_never_committed_is_removed(place: Workplace):
    asyncio.run(place.ingest.receive(chunked(bytes(100_000)), None))
    assert place.files()
    clean_up(place)
    assert place.contents() == ({}, {})


def test_a_pack_that_was_written_and_never_committed_is_removed(place: Workplace):
    upload = asyncio.run(place.ingest.receive(chunked(bytes(100_000)), None))
    place.store.adopt(upload.name, upload.file.path)
    clean_up(place)
    assert place.contents() == ({}, {})


def test_a_pack_that_was_being_copied_is_removed(place: Workplace):
    upload = asyncio.run(place.ingest.receive(chunked(bytes(100_000)), None))
    place.store.create(upload.name, upload.file.path, [Span(0, 10)])
    (pack,) = (path for path in place.folder.rglob("*.pack"))
    pack.rename(pack.with_suffix(".part"))
    clean_up(place)
    assert place.contents() == ({}, {})


def test_a_pack_that_was_announced_and_never_begun_is_forgotten(place: Workplace):
    with place.catalog.write() as w:
        packs.begin(w, "abcdef", lease_seconds=3600)
    clean_up(place)
    assert place.contents() == ({}, {})


def test_what_was_committed_stays(place: Workplace):
    data = torch_file({"w": weights(1)})
    checkpoint = place.upload(data)
    before = place.contents()
    asyncio.run(place.ingest.receive(chunked(bytes(100_000)), None))
    clean_up(place)
    assert place.contents() == before
    assert place.original(checkpoint) == data


def test_cleaning_up_where_nothing_is_left_changes_nothing(place: Workplace):
    clean_up(place)
    place.upload(torch_file({"w": weights(1)}))
    before = place.contents()
    clean_up(place)
    assert place.contents() == before
