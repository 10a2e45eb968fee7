from datetime import UTC, datetime

import pytest

from app.api.responses.json import view_json
from app.api.routes.negotiated import UploadView
from app.api.routes.state_dicts import MismatchView, WarmstartReport
from app.values.slices import ITEMS


@pytest.mark.parametrize("count", [0, 1, ITEMS, ITEMS + 1, 3 * ITEMS])
def test_long_lists_are_written_as_pydantic_writes_them(count: int) -> None:
    keys = [f'k"{number}\udcff' for number in range(count)]
    report = WarmstartReport(
        matched_keys=keys,
        missing_keys=[],
        unexpected_keys=keys[:2],
        mismatched_keys=[MismatchView(key=key, have=[1, 2], want=[]) for key in keys],
        resized_keys=[MismatchView(key=key, have=[1], want=[2]) for key in keys],
        cast_keys=keys,
        bytes=5,
        download=None,
    )
    upload = UploadView.model_construct(
        id="u",
        kept_until=datetime(2026, 1, 2, tzinfo=UTC),
        part_size=1,
        missing_bytes=2,
        missing=[(number, number + 1) for number in range(count)],
        url="/v1",
    )
    for view in (report, upload):
        assert view_json(view) == view.model_dump_json().encode()
