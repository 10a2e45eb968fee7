"""The table of errors, and the contents of problems."""

import json
from collections.abc import Iterator

import pytest

from app import errors
from app.api.problems import KINDS, Kind, internal_error, invalid, kind_of, problem_of


def tree(error: type[errors.StateroomError]) -> Iterator[type[errors.StateroomError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


@pytest.mark.parametrize("error", list(tree(errors.StateroomError)), ids=lambda error: error.__name__)
def test_every_error_class_has_an_entry_of_its_own(error: type[errors.StateroomError]) -> None:
    assert isinstance(KINDS.get(error), Kind)
    assert 400 <= KINDS[error].status < 600


def test_a_class_that_nobody_mapped_is_not_mapped_by_its_parent() -> None:
    class Unheard(errors.StoreError):
        code = "unheard"

    with pytest.raises(KeyError):
        kind_of(Unheard("?"))


def test_a_code_with_an_entry_overrides_its_class() -> None:
    assert problem_of(errors.SelectionError("no", code="cast-unavailable")).status == 501
    assert problem_of(errors.InvalidRequest("no")).status == 400
    assert problem_of(errors.InvalidRequest("no", code="bad-ref")).status == 422


def test_a_problem_has_the_members_of_rfc_9457_and_those_of_its_error() -> None:
    response = problem_of(errors.HostileCheckpoint("too deep", rule="nesting", where="data.pkl")).response()
    assert response.media_type == "application/problem+json"
    assert json.loads(response.body) == {
        "type": "urn:stateroom:problem:hostile-checkpoint",
        "title": "The upload breaks a rule for checkpoint files",
        "status": 422,
        "detail": "too deep",
        "code": "hostile-checkpoint",
        "rule": "nesting",
        "where": "data.pkl",
    }
    near = problem_of(errors.SelectionError("no", code="unknown-device", near=["cuda"]))
    assert near.members == {"near": ["cuda"]}
    missing = problem_of(errors.MissingBlobs("gone", digests=["blake3:00"]))
    assert missing.members == {"digests": ["blake3:00"]}


def test_what_may_be_tried_again_says_when() -> None:
    assert problem_of(errors.StoreError("no")).response().headers["Retry-After"] == "5"
    assert "Retry-After" not in problem_of(errors.DamagedBlob("no")).response().headers


def test_what_nobody_foresaw_says_nothing_but_a_request_id() -> None:
    problem = json.loads(internal_error("0123abcd").body)
    assert (problem["code"], problem["request_id"]) == ("internal-error", "0123abcd")
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}


def test_a_mistake_in_a_value_is_placed_but_not_repeated() -> None:
    problem = invalid(
        [{"type": "int_parsing", "loc": ("query", "limit"), "msg": "should be an integer", "input": "x" * 99}]
    )
    assert problem.members["errors"] == [{"where": "query.limit", "detail": "should be an integer"}]
    assert "xxx" not in str(problem)
