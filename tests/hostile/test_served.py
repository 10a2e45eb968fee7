"""A real server returns accepted files of the corpus unchanged, and as torch reads them; refused files leave nothing
behind. After every file the server goes on, and has run nothing.

Every class sends SENT files, spread over all it has; with ``make stress`` it sends each one.
"""

import io
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from tests.functional.audited import Audited, assert_leaks_nothing, trace, whole_checkpoint
from tests.functional.conftest import HttpModel, warm_up
from tests.functional.torch_files import same
from tests.hostile.corpus import CLASSES
from tests.hostile.corpus.base import Hostile
from tests.support.measure import long, measure

SENT = 3
REFUSED_AS = {"not-a-checkpoint", "hostile-checkpoint", "no-tensors", "sharded-tensor", "bad-folder"}


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    audited = Audited(tmp_path_factory.mktemp("hostile"))
    try:
        warm_up(audited.server)
        yield audited
    finally:
        audited.server.kill()


@long
@pytest.mark.parametrize("class_name", CLASSES)
def test_what_is_accepted_is_served_and_what_is_refused_leaves_nothing(audited: Audited, class_name: str) -> None:
    server, already = audited.server, len(audited.events())
    before = trace(server)
    kept: list[Hostile] = []
    with server.client() as http:
        model = HttpModel(http, "tests/" + "".join(filter(str.isalpha, class_name)))
        for file in sent_of(class_name):
            if file.rules:
                assert_refused(http.post(model.url(), content=file.data), file)
            else:
                kept.append(file)
        assert trace(server) == before
        for file in kept:
            answer = http.post(model.url(), content=file.data)
            if file.either and answer.status_code != 201:
                assert_refused(answer, file)
            else:
                assert answer.status_code == 201, (file.name, answer.text)
                assert_served(model, answer.json(), file)
        model.upload(whole_checkpoint())
        assert model.get("latest/original") == whole_checkpoint()
    assert_leaks_nothing(server, server.log)
    assert [request for request in server.requests if request["status"] >= 500] == []
    events = audited.events()[already:]
    assert all(event.startswith("subprocess.Popen") and "'app.sandbox'" in event for event in events), events[:3]


def sent_of(class_name: str) -> list[Hostile]:
    files = list(CLASSES[class_name]())
    return files[:: measure(-(-len(files) // SENT), 1)]


def assert_refused(answer: httpx.Response, file: Hostile) -> None:
    problem = answer.json()
    assert answer.status_code == 422, (file.name, answer.text)
    assert problem["code"] in REFUSED_AS, (file.name, answer.text)
    rule = problem.get("rule") or problem["code"]
    assert rule in file.rules or file.either, (file.name, answer.text)


def assert_served(model: HttpModel, shown: dict[str, Any], file: Hostile) -> None:
    """Byte for byte, and tensor for tensor what torch reads of it, where torch does; with all code that it names."""
    version = shown["version"]
    assert file.names <= set(shown["unsafe_globals"]), file.name
    assert model.get(f"{version}/original") == file.data, file.name
    for path in ("", "/tensors", "/file", "/state_dict"):
        answer = model.http.get(model.url(f"{version}{path}"))
        assert answer.status_code < 500, (file.name, path, answer.text)
    expected = stock_reading(file.data)
    for component in shown["components"]:
        if component["kind"] != "state_dict" or not isinstance(expected, dict):
            continue
        name = component["name"]
        answer = model.http.get(model.url(f"{version}/state_dict"), params={"component": name})
        if answer.status_code == 200 and (name == "" or name in expected):
            want = expected.get(name, expected)
            assert same(dict(stock_reading(answer.content)), dict(want)), file.name


def stock_reading(data: bytes) -> Any:
    """What torch reads of a file; None where it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(io.BytesIO(data), weights_only=True)
        except Exception:  # noqa: BLE001 - torch raises whatever comes
            return None
