from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.store.digests import digest_of
from stateroom._digest import BLOCK_SIZE, Hasher
from tests.support.measure import examples

SIZES = st.one_of(
    st.integers(0, 300),
    st.integers(BLOCK_SIZE - 2, BLOCK_SIZE + 2),
    st.integers(2 * BLOCK_SIZE - 2, 2 * BLOCK_SIZE + 2),
)
BYTES = bytes(range(251)) * (2 * BLOCK_SIZE // 251 + 2)


@examples(25)  # hashing megabytes
@given(size=SIZES, cuts=st.lists(st.integers(0, 2 * BLOCK_SIZE + 2), max_size=5))
def test_client_and_server_name_the_same_bytes_alike_however_they_come(size: int, cuts: list[int]) -> None:
    data = memoryview(BYTES)[:size]
    places = sorted({0, size, *(cut for cut in cuts if cut < size)})
    hasher = Hasher()
    for start, end in pairwise(places):
        hasher.update(data[start:end])
    assert hasher.digest() == digest_of(data)[0]
    assert hasher.size == size
