"""Packs in an object store: the conformance suite, in memory and at a real S3-compatible server."""

from collections.abc import Iterator

import pytest
from obstore.store import MemoryStore

from app.store.object_store import ObjectPackStore
from app.store.remote import ObjectStoreAt
from tests.store.conformance import PackStoreConformance
from tests.support.s3 import S3


class TestInMemory(PackStoreConformance):
    @pytest.fixture
    def store(self) -> Iterator[ObjectPackStore]:
        store = ObjectPackStore(MemoryStore())
        yield store
        store.close()


@pytest.fixture
def s3_store(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectPackStore]:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = ObjectStoreAt(s3.new_url(), s3.endpoint).open()
    yield store
    store.close()


class TestS3(PackStoreConformance):
    @pytest.fixture
    def store(self, s3_store: ObjectPackStore) -> ObjectPackStore:
        return s3_store
