"""A client generated from the OpenAPI document works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import general
from tests.support.openapi import operations
from tests.support.server import Server

PROGRAMS = Path(sys.prefix) / "openapi" / "bin"
"""Of an environment of its own: what generates clients asks for other versions than the server does."""

SCRIPT = Path(__file__).with_name("generated_client.py")


@pytest.fixture(scope="module")
def generated(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a package that was made from the server's document, without a warning."""
    if not (PROGRAMS / "openapi-python-client").exists():
        pytest.skip("no openapi-python-client: make .venv/openapi-client")
    folder = tmp_path_factory.mktemp("generated")
    with server.client() as http:
        (folder / "openapi.json").write_bytes(http.get("/openapi.json").content)
    made = subprocess.run(
        [PROGRAMS / "openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none",
         "--output-path", "generated", "--fail-on-warning"],
        cwd=folder, env={**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.defpath}"},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert (made.returncode, "arning" in made.stdout + made.stderr) == (0, False), made.stdout + made.stderr
    return folder / "generated"


def test_a_generated_client_uploads_lists_changes_downloads_and_deletes(
    generated: Path, server: Server, model_name: str, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(general())
    ran = subprocess.run(
        [PROGRAMS / "python", SCRIPT, server.base_url, *model_name.split("/"), tmp_path / "checkpoint.pt"],
        cwd=generated.parent, env={**os.environ, "no_proxy": "*"},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "epoch": 3,
        "components": ["model_state_dict", "optimizer_state_dict"],
        "dated": True,
        "tags": {"a": "b"},
        "listed": [1],
        "same": True,
        "removed": 204,
        "gone": [404, "checkpoint-not-found"],
    }


def test_every_operation_is_a_function_of_a_generated_client(generated: Path, http: httpx.Client) -> None:
    made = {path.stem for path in (generated / "api").glob("*/*.py")} - {"__init__"}
    assert len(made) == len(list(operations(http.get("/openapi.json").json())))
