"""Every route gets the worst requests that we know of, as every reader gets the hostile corpus."""

import sys
import time

import pytest

from tests.conftest import StartServer
from tests.support.measure import long, measure
from tests.support.routes import OPERATIONS
from tests.support.waiting import until_ready
from tests.support.worst_bodies import Place, fill, peak, reset_peak, worst_requests

SCALE = measure(1_500, 10_000)
"""Keys of each thing. The benchmark of this name has 400,000."""

MOST_MEMORY = 256 << 20
MOST_JSON = 16 << 20
SECONDS = 120
"""For any answer: some hundred times what the longest takes."""


def test_every_route_has_a_worst_body() -> None:
    assert {each.route for each in worst_requests(Place(1, 2, 3, "abc", 4), 10)} == set(OPERATIONS)


@long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_body_takes_much_memory_or_is_answered_at_length_or_ends_the_server(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    found: list[str] = []
    with server.client(timeout=SECONDS) as http:
        place = fill(http, SCALE)
        for each in worst_requests(place, SCALE):
            method, _ = each.route
            body = each.body()
            before, started = reset_peak(server.pid), time.monotonic()
            answer = http.request(method, each.path, content=body, headers=each.headers)
            took, grown = time.monotonic() - started, peak(server.pid) - before
            what = f"{method} {each.route[1]}, {each.what}: {answer.status_code} after {took:.2f} s, +{grown >> 20} MiB"
            is_json = "json" in answer.headers.get("Content-Type", "")
            if grown > MOST_MEMORY or answer.status_code >= 500 or (is_json and len(answer.content) > MOST_JSON):
                found.append(f"{what}, {len(answer.content):,} bytes")
            assert http.get("/healthz").status_code == 200, what
        until_ready(http)
    assert found == []
    assert "Traceback" not in server.log
