"""The house rules that no linter knows."""

import ast
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from tests.support.docs import ROOT

SERVER = sorted((ROOT / "app").rglob("*.py"))
MAX_LINES = 300
LONG_FOR_A_REASON: dict[str, str] = {
    "app/catalog/tables.py": "the whole schema in one place",
    "app/formats/pickle/emit.py": "one writer, a method for each kind of node",
    "app/formats/pickle/machine.py": "one loop over the opcodes, a method for each",
    "client/stateroom/_api.py": "a method for each route",
    "client/stateroom/_model.py": "what a user does with a model: the signatures and their contracts, and little else",
}
"""Modules over MAX_LINES, each with the reason. Test files are lists of claims, and may be longer."""

NAMES_THAT_RUN_CODE = {"eval", "exec", "compile", "__import__", "import_module", "find_class", "Unpickler"}
RUN_BY_NAME_FOR_A_REASON = {
    "app/sandbox/__main__.py": "runs one of our own functions in a child process, named by its parent",
    "app/sandbox/stream_child.py": "runs one of our own modules in a child process, named by its parent",
}


def project(path: str = "pyproject.toml") -> dict:
    return tomllib.loads((ROOT / path).read_text())


def where(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", ["app", "client", "demo", "benchmarks", "migrations"])
def test_no_module_is_too_long_to_read(folder: str) -> None:
    long = {where(f) for f in (ROOT / folder).rglob("*.py") if len(f.read_text().splitlines()) > MAX_LINES}
    assert long - set(LONG_FOR_A_REASON) == set()


def test_the_server_has_no_way_to_run_what_a_file_names() -> None:
    """``make check`` forbids importing pickle and torch; this is about what could do the same under another name."""
    found = {}
    for file in SERVER:
        names = {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, (ast.Name, ast.Attribute)) and not is_method_of_a_pattern(node)
        }
        if names & NAMES_THAT_RUN_CODE and where(file) not in RUN_BY_NAME_FOR_A_REASON:
            found[where(file)] = names & NAMES_THAT_RUN_CODE
    assert found == {}


def is_method_of_a_pattern(node: ast.AST) -> bool:
    """``re.compile`` compiles patterns."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"re", "re2"}


def test_the_wheel_ships_every_package_of_the_server() -> None:
    listed = set(project()["tool"]["setuptools"]["packages"])
    folders = {f.parent.relative_to(ROOT / "app").parts for f in (ROOT / "app").rglob("__init__.py")}
    expected = {".".join(("stateroom_server", *parts)) for parts in folders}
    assert listed == expected | {"stateroom_server.migrations", "stateroom_server.migrations.versions"}


def test_no_test_module_imports_from_another() -> None:
    """Helpers that tests share have modules of their own."""
    lines = [
        (where(file), line)
        for file in (ROOT / "tests").rglob("*.py")
        for line in file.read_text().splitlines()
        if re.match(r"\s*(from|import) tests\.(\w+\.)*test_", line)
    ]
    assert lines == []


def test_every_dependency_is_pinned_to_the_version_that_was_tested() -> None:
    pinned = {normal(line.partition("==")[0]) for line in constraints()}
    named = set()
    for path in ("pyproject.toml", "client/pyproject.toml"):
        table = project(path)["project"]
        for requirement in chain(table["dependencies"], *table["optional-dependencies"].values()):
            named.add(normal(re.match(r"[\w.-]+", requirement)[0]))
    assert named - {"stateroom", "stateroom-server"} <= pinned


def test_constraints_pin_versions_and_nothing_else() -> None:
    assert [line for line in constraints() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def constraints() -> list[str]:
    return [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_invariant_of_the_design_names_tests_that_exist() -> None:
    text = (ROOT / "docs/design.md").read_text()
    section = text.partition("\n## Invariants")[2].partition("\n## ")[0]
    invariants = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", section, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in invariants] == list(range(1, len(invariants) + 1))
    for number, invariant in invariants:
        named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", invariant)
        assert named, f"invariant {number} names no test"
        for path, test in named:
            assert test in functions(ROOT / path), f"invariant {number}: there is no {path}::{test}"


def test_every_outage_of_the_manual_names_tests_that_exist() -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("\n## Outages")[2].partition("\n## ")[0]
    faults = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(faults) > 10
    for fault in faults:
        named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", fault)
        assert named, fault
        for path, test in named:
            assert test in functions(ROOT / path), f"there is no {path}::{test}"


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
