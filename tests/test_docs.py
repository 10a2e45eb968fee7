"""The commands in the documents do what the documents promise."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from app.api.problems import STATUS_CODES
from tests.conftest import StartServer
from tests.support.codes import NEVER_ON_THE_WIRE
from tests.support.docs import ROOT, blocks

SHOWN_URL = "http://127.0.0.1:8765"
CURLRC = "fail-with-body\nsilent\nshow-error\n"
"""What makes curl end with an error where the server answered with one, without cluttering the documents."""


@pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning")  # no process group: one process saves
@pytest.mark.parametrize("document", ["README.md", "docs/http-api.md", "docs/how-to.md"])
def test_every_command_and_snippet_of_a_document_works(
    document: str, fresh_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fresh_server()
    (tmp_path / ".curlrc").write_text(CURLRC)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    ran = 0
    for block in blocks(document):
        text = block.text.replace(SHOWN_URL, server.base_url)
        if block.language == "python":
            exec(compile(text, document, "exec"), names)
        elif block.language == "bash":
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                env={**os.environ, "CURL_HOME": str(tmp_path), "no_proxy": "*"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, f"{text}\n{result.stdout[-2000:]}\n{result.stderr}"
        else:
            continue
        ran += 1
    assert ran


def test_every_make_verb_in_the_readme_is_in_the_makefile() -> None:
    shown = set(re.findall(r"^make ([\w-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert shown == set(phony[1].split())


def test_every_code_that_an_error_can_have_is_documented() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "app").rglob("*.py"))
    codes = set(re.findall(r'\bcode ?= ?"([a-z-]+)"', sources)) - NEVER_ON_THE_WIRE
    codes |= {code for code, _ in STATUS_CODES.values()}
    documented = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs/http-api.md").read_text()))
    assert codes - documented == set()


DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "client/README.md",
    ROOT / "deploy/README.md",
    *(ROOT / "docs").rglob("*.md"),
]


def test_every_file_that_a_document_names_is_there() -> None:
    places = r"`((?:app|benchmarks|client|demo|docs|migrations|tests)/[\w./-]*)(?:::\w+)?`"
    named = {(page.name, name) for page in DOCUMENTS for name in re.findall(places, page.read_text())}
    assert len(named) > 60
    assert {(page, name) for page, name in named if not (ROOT / name).exists()} == set()


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"
