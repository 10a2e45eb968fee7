"""SHA-256s of uploaded files: computed once for all who ask, verified, kept, given up with the last who asks."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest

from app.catalog import Catalog
from app.catalog.checkpoints import resolve
from app.concurrency.cancellation import TakesLong, Work, doing
from app.deliver.service import Deliver
from app.errors import Cancelled, DamagedBlob
from app.store import LocalPackStore
from app.values.checkpoint import Checkpoint
from app.values.span import Span
from tests.ingest.workplace import MODEL, Workplace, torch_file, weights

MIB = 1024 * 1024
DATA = torch_file({"model_state_dict": {str(number): weights(number, 5) for number in range(4)}})


class Counting(LocalPackStore):
    """Counts the bytes that are read."""

    nbytes = 0

    def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
        self.nbytes += span.length
        return super().read(name, span, ahead=ahead)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with closing(Workplace.at(tmp_path / "data", tmp_path / "catalog.sqlite3", durable=False)) as place:
        yield place


@pytest.fixture
def store(place: Workplace) -> Counting:
    return Counting(place.folder, durable=False)


@pytest.fixture
def deliver(place: Workplace, store: Counting) -> Iterator[Deliver]:
    with closing(Deliver(place.catalog, store)) as deliver:
        yield deliver


def kept(catalog: Catalog) -> str | None:
    with catalog.read() as session:
        return resolve(session, MODEL, "latest").sha256


def test_the_file_is_read_once_for_all_who_ask(place: Workplace, store: Counting, deliver: Deliver) -> None:
    checkpoint = place.upload(DATA)
    deliver.original(checkpoint)  # reads the manifest
    store.nbytes = 0
    asking = Barrier(8)

    def ask(_: int) -> Checkpoint:
        asking.wait()
        return deliver.with_sha256(checkpoint)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(8)))
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert {each.sha256 for each in found} == {sha256}
    assert len(DATA) <= store.nbytes < 1.5 * len(DATA)
    assert kept(place.catalog) == sha256


def test_the_same_file_in_another_checkpoint_is_not_read_again(
    place: Workplace, store: Counting, deliver: Deliver
) -> None:
    first, second = place.upload(DATA), place.upload(DATA)
    sha256 = deliver.with_sha256(first).sha256
    store.nbytes = 0
    assert deliver.with_sha256(second).sha256 == sha256 == kept(place.catalog)
    assert store.nbytes < MIB


def test_what_is_kept_is_not_read_again(place: Workplace, store: Counting, deliver: Deliver) -> None:
    sha256 = deliver.with_sha256(place.upload(DATA)).sha256
    with closing(Deliver(place.catalog, store)) as another, place.catalog.read() as session:
        store.nbytes = 0
        assert another.with_sha256(resolve(session, MODEL, "latest")).sha256 == sha256
        assert store.nbytes < MIB


def test_a_large_file_is_left_to_the_threads_for_long_work(place: Workplace, deliver: Deliver) -> None:
    checkpoint = place.upload(DATA)
    with doing(Work("somebody", may_take_long=False)), pytest.raises(TakesLong):
        deliver.with_sha256(checkpoint)


def test_the_work_ends_when_nobody_waits_for_it(place: Workplace, deliver: Deliver) -> None:
    checkpoint = place.upload(DATA)
    deliver.original(checkpoint)
    work = Work("somebody")
    work.give_up()
    with doing(work), pytest.raises(Cancelled):
        deliver.with_sha256(checkpoint)
    assert kept(place.catalog) is None


def test_damaged_bytes_have_no_sha256(place: Workplace, deliver: Deliver) -> None:
    checkpoint = place.upload(DATA)
    [pack] = place.folder.rglob("*.pack")
    with pack.open("r+b") as file:
        file.seek(len(DATA) // 2)
        byte = file.read(1)[0]
        file.seek(len(DATA) // 2)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(DamagedBlob):
        deliver.with_sha256(checkpoint)
    assert kept(place.catalog) is None
