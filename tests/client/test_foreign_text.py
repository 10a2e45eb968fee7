"""Text from others cannot control the terminal on which Python prints an error, a warning or a report."""

import io
import re
import traceback
import warnings
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stateroom import Client, StateDictMismatch, StateroomError, UnsafeGlobals
from stateroom._printable import one_line, printable, with_lines
from stateroom._progress import Bar
from stateroom._report import Mismatch, Report, misfit
from tests.client.conftest import Answer, StartScripted, described, in_turn, problem
from tests.support.server import Server, start_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for this module, on SQLite: the database makes no difference to what a client believes."""
    running = start_server(tmp_path_factory.mktemp("one") / "data", env={"STATEROOM_DURABLE": "off"})
    yield running
    running.kill()


NASTY = "\x1b]0;pwned\x07\x1b[2J\r\nforged: line\x9b31m\u202egnp\u2066\u2028\x7f"


def is_harmless(text: str, line_breaks: str = "") -> bool:
    """Whether it has no control, format or separator character, and no line that somebody else began."""
    return all(c.isprintable() or c in line_breaks for c in text) and "\nforged" not in text


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_made_printable_can_be_printed(text: str) -> None:
    assert is_harmless(printable(text))
    assert is_harmless(one_line(text))
    assert is_harmless(with_lines(text), "\n\t") or "\nforged" in text
    printable(text).encode()
    assert printable(printable(text)) == printable(text)


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_what_could_be_printed_stays_as_it_is(text: str) -> None:
    assert printable(text) == one_line(text) == with_lines(text) == text


def test_a_warning_of_what_is_left_out_names_it_in_one_line(server: Server, model_name: str) -> None:
    file = io.BytesIO()
    torch.save({"model": {"weight": torch.ones(3), NASTY + "_extra_state": Fraction(1, 2)}}, file)
    with server.client() as http:
        http.post(f"/v1/models/{model_name}/checkpoints", content=file.getvalue()).raise_for_status()
    with Client(server.base_url) as client, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client.model(model_name).state_dict("latest")
    texts = [str(each.message) for each in caught]
    assert any("pwned" in text for text in texts)
    assert all(map(is_harmless, texts)), texts


def test_a_state_dict_that_does_not_fit_is_refused_without_its_keys_steering(server: Server, model_name: str) -> None:
    with Client(server.base_url) as client:
        model = client.model(model_name)
        model.save({"weight": torch.ones(3, 3), "bias": torch.ones(3), NASTY: torch.ones(1)})
        with pytest.raises(StateDictMismatch, match="pwned") as caught:
            model.load_into(nn.Linear(3, 3), "latest")
        report = model.warmstart(nn.Linear(3, 3), "latest")
    assert is_harmless("".join(traceback.format_exception(caught.value)), "\n\t")
    assert report.unexpected_keys == (NASTY,)
    assert is_harmless(str(report), "\n")


def test_the_names_of_what_cannot_be_loaded_are_printable_in_the_error_and_its_traceback(
    scripted: StartScripted,
) -> None:
    server = scripted(
        in_turn(described(model=f"a/{NASTY}", unsafe_globals=[f"evil{NASTY}.Class"], components=[COMPONENT], run=NASTY))
    )
    model = Client(server.url).model("a/b")
    with pytest.raises(UnsafeGlobals) as caught:
        model.load("latest")
    assert is_harmless(str(caught.value))
    assert all(map(is_harmless, caught.value.globals))
    assert is_harmless("".join(traceback.format_exception(caught.value)), "\n")
    checkpoint = model.checkpoint("latest")
    assert is_harmless(str(checkpoint))
    assert is_harmless(repr(checkpoint))


COMPONENT = {"name": NASTY, "kind": "state_dict", "keys": 1, "bytes": 1}


def test_what_a_server_answers_with_an_error_is_printable(scripted: StartScripted) -> None:
    refusal = problem(422, "no-keys-matched")
    refusal.body = refusal.body.replace(b'"this is', rb'"near": ["\u001b[2J"], "rule": "\r\nforged", "detail": "\u202e')
    redirect = Answer(308, headers={"Location": "http://host/\x9b31m"})
    for answer in (refusal, redirect):
        with pytest.raises(StateroomError) as caught:
            Client(scripted(in_turn(answer)).url).model("a/b").checkpoint("latest")
        error = caught.value
        texts = [str(error), error.detail, *error.near, error.rule or ""]
        assert all(map(is_harmless, texts)), texts


def test_a_report_is_printable_whatever_the_keys_are() -> None:
    mismatch = Mismatch(NASTY, (1,), (2,))
    report = Report(f"a/{NASTY}@1", (NASTY,), (NASTY,), (NASTY,), (mismatch,), (NASTY,), (NASTY,))
    assert is_harmless(str(report), "\n")
    assert is_harmless(misfit(report, strict=True) or "", "\n\t")
    assert is_harmless(str(mismatch))


def test_a_bar_draws_one_line_whatever_the_label_is() -> None:
    times = iter([0.0, 10.0])
    stream = io.StringIO()
    Bar(stream, lambda: next(times))(NASTY, 1, 2)
    drawn = re.sub(r"\r?\x1b\[(?:\?25[lh]|2K|[0-9;]*m)", "", stream.getvalue())  # the cursor, the line, colours
    assert is_harmless(drawn)


@pytest.mark.parametrize("by", ["ref", "checkpoint"])
def test_a_warning_names_the_model_once(by: str, server: Server, model_name: str) -> None:
    with Client(server.base_url) as client, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = client.model(model_name)
        checkpoint = model.save({"model": {"weight": torch.ones(3), "_extra_state": Fraction(1, 2)}})
        model.state_dict(checkpoint if by == "checkpoint" else "latest")
    assert [str(each.message).count(model_name) for each in caught if "left out" in str(each.message)] == [1]
