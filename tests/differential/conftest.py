from collections.abc import Iterator

import pytest

from tests.differential.judge import Judge


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    judge.close()
