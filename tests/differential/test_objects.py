"""Invariant 2, on random objects: stock torch reads the same from our file as from the upload."""

from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings

from app.formats.index import index
from tests.deliver.planning import load, save, served_file, served_state_dict
from tests.differential.judge import Judge, Verdict
from tests.differential.objects import checkpoints, saving
from tests.support.measure import long, measure


@pytest.mark.filterwarnings("ignore")  # torch's own: of sparse, quantized and complex32 tensors
@long
@settings(max_examples=measure(20, 1500), deadline=None, suppress_health_check=list(HealthCheck))
@given(checkpoints(), saving)
def test_our_file_is_the_upload_to_stock_torch(judge: Judge, obj: Any, options: dict[str, Any]) -> None:
    data = save(obj, **options)
    verdict = judge.compare(data, served_file(data))
    event(verdict.value)
    assert verdict is not Verdict.DIFFERENT, judge.reason
    for component in index(memoryview(data)).manifest.components:
        load(served_state_dict(data, component=component.name))
