"""Every name in the documents exists, and every name is documented: settings, commands, figures, codes, and so on."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import typer

import stateroom
import stateroom.archive
from app.__main__ import cli as server_cli
from app.access.signatures import LONGEST
from app.api.http1.head import MAX_HEAD_BYTES, MAX_HEADERS
from app.api.http1.protocol import MAX_PIPELINED
from app.api.problems import KINDS, STATUS_CODES
from app.api.requests import bodies, multipart
from app.api.routes.state_dicts import MAX_TARGET
from app.api.services import THREADS
from app.catalog import rows as catalog_rows
from app.catalog import shown
from app.errors import StateroomError
from app.ingest.receive import held_by
from app.process.serve import KEEP_ALIVE_SECONDS
from app.select.keys import MAX_COST
from app.select.names import MAX_RENAMES
from app.select.patterns import MAX_PATTERN_LENGTH, MAX_PREFIXES
from app.settings import CLIENT_VARIABLES, Settings
from app.values.work import MIN_STEPS, STEPS_HERE, STEPS_PER_BYTE
from stateroom._cli.main import cli as client_cli
from tests.support.codes import NEVER_ON_THE_WIRE
from tests.support.docs import ROOT
from tests.support.openapi import operations
from tests.support.routes import DOCUMENT

HTTP, OPERATIONS, CLIENT = "docs/http-api.md", "docs/operations.md", "docs/client.md"
PAGES = ("README.md", "client/README.md", "SECURITY.md", HTTP, OPERATIONS, CLIENT, "docs/formats.md", "docs/design.md")
EVERYWHERE = {"url", "token", "json", "help", "version"}
"""Options of every client command."""


def text_of(*pages: str) -> str:
    return "\n".join((ROOT / page).read_text() for page in pages)


def rows(text: str) -> Iterator[list[str]]:
    """The cells of all table rows."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def code_of(text: str) -> str:
    """All that is set as code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", prose)])


def commands(cli: typer.Typer) -> dict[str, set[str]]:
    """The options of each command: ``{"serve": {"--host", ...}, "token add": ...}``."""

    def within(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
        inside = getattr(command, "commands", {})
        for each, child in inside.items():
            yield from within(child, f"{name} {each}".strip())
        if not inside:
            options = (option for param in command.params for option in (*param.opts, *param.secondary_opts))
            yield name, {option for option in options if option.startswith("--")}

    return dict(within(typer.main.get_command(cli), ""))


# Settings


def setting_of(name: str) -> str:
    """The field that an option or a variable sets."""
    return name.removeprefix("--").removeprefix("STATEROOM_").replace("-", "_").lower()


def test_every_setting_is_in_a_table_of_the_operations_page() -> None:
    named = {setting_of(name) for cells in rows(text_of(OPERATIONS)) for name in re.findall(r"`([^` ]+)`", cells[0])}
    assert set(Settings.model_fields) - named == set()


def test_every_variable_that_a_page_names_is_one() -> None:
    known = {name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
    for page in PAGES:
        assert set(re.findall(r"STATEROOM_([A-Z_]*[A-Z])", text_of(page))) - known == set(), page
    assert {name for name in CLIENT_VARIABLES if f"STATEROOM_{name}" not in text_of(CLIENT)} == set()


def test_a_default_is_what_the_page_says() -> None:
    told = 0
    for cells in rows(text_of(OPERATIONS)):
        name = setting_of(cells[0].strip("`"))
        if len(cells) == 3 and name in Settings.model_fields and name != "reserve":
            default = Settings.model_fields[name].default
            nothing = default if default in {None, frozenset()} else None
            shown = nothing if cells[2] == "none" else getattr(Settings(**{name: cells[2].strip("`")}), name)
            assert (name, shown) == (name, default)
            told += 1
    assert told > 15


def test_a_default_is_what_help_says() -> None:
    command = typer.main.get_command(server_cli)
    shown = [(each.name, re.search(r"\(([0-9.]+)\)$", each.help)) for each in command.commands["serve"].params]
    told = {name: getattr(Settings(**{name: found[1]}), name) for name, found in shown if found is not None}
    assert told == {name: Settings.model_fields[name].default for name in told}
    assert len(told) > 5


KIB, MIB = 1024, 1024**2


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (HTTP, f"{MAX_HEAD_BYTES // KIB} KiB, {MAX_HEADERS} fields, within {Settings().head_seconds:g} s"),
        (HTTP, f"pause for {Settings().body_seconds:g} s, and makes {Settings().least_rate:,} bytes a second"),
        (HTTP, f"nothing of it for {Settings().send_seconds:g} s, and takes {Settings().least_rate:,} bytes a second"),
        (HTTP, f"{bodies.SMALL // MIB} MiB; {bodies.LARGE // MIB} MiB of `warmstart`"),
        (HTTP, f"{bodies.LEAST_RATE // KIB} KiB a second"),
        (HTTP, f"{MAX_TARGET:,} keys of a target"),
        (HTTP, f"{MAX_PATTERN_LENGTH:,} characters; of a kind, {MAX_PREFIXES:,} that end in `*`"),
        (HTTP, f"{MAX_RENAMES:,} renames"),
        (HTTP, f"{multipart.MAX_FIELDS:,}, each of {multipart.MAX_FIELD_BYTES // KIB} KiB"),
        (HTTP, f"{Settings().memory // 1024**3} GiB a worker"),
        (HTTP, f"{Settings().max_uploads} a worker, {Settings().max_uploads // 2} of them with one token"),
        (HTTP, f"| {MAX_PIPELINED} |"),
        (HTTP, f"{KEEP_ALIVE_SECONDS} s; {Settings().head_seconds:g} s before its first request"),
        (HTTP, f"at most {shown.MAX_TEXT // KIB} Ki characters of names"),
        (HTTP, f"the first {shown.MAX_COMPONENTS} of them"),
        (HTTP, f"at most {catalog_rows.MAX_FIELDS:,} of each, and {catalog_rows.MAX_TAGS_LENGTH // KIB} Ki characters"),
        (HTTP, f"{LONGEST.days} days ({LONGEST.total_seconds():.0f}) at most"),
        (OPERATIONS, f"an upload up to {held_by(None) // MIB} MiB"),
        *((OPERATIONS, f"| {count} | the request waits |") for count in THREADS.values()),
        ("docs/formats.md", f"| {STEPS_HERE:,} | 0.3 s"),
        ("docs/formats.md", f"| {MIN_STEPS:,}, and {STEPS_PER_BYTE} for each byte"),
        ("docs/formats.md", f"times keys | {MAX_COST:,} steps"),
        ("docs/design.md", f"ends after {STEPS_HERE:,} steps"),
        ("SECURITY.md", f"{STEPS_HERE:,} steps, then a child process"),
    ],
)
def test_a_limit_is_what_the_page_says(page: str, text: str) -> None:
    assert text in text_of(page)


# Commands


def test_every_server_command_and_option_is_on_the_operations_page() -> None:
    page = text_of(OPERATIONS)
    for name, options in commands(server_cli).items():
        assert f"stateroom-server {name}" in page
        assert {option for option in options if f"{option}" not in page} == set(), name


def test_every_command_of_the_server_that_a_page_shows_is_one() -> None:
    known = commands(server_cli)
    shown = re.findall(
        r"(?:stateroom-server|python -m app) ((?:token )?[a-z]+)\b([^`#|)\n]*)", code_of(text_of(*PAGES))
    )
    assert len(shown) > 15
    for name, rest in shown:
        assert name in known
        assert set(re.findall(r"--[a-z-]+", rest)) <= known[name], name


def test_every_client_command_and_option_is_in_its_row() -> None:
    shown = {cells[0].strip("`").split()[0]: cells[1] for cells in rows(text_of(CLIENT)) if len(cells) == 2}
    for name, options in commands(client_cli).items():
        named = set(re.findall(r"`(--[a-z0-9-]+)", shown[name]))
        wanted = {option for option in options if option.removeprefix("--") not in EVERYWHERE}
        assert (name, named - {"--yes"}) == (name, wanted - {"--output", "--yes"}), name


def test_every_finding_of_fsck_is_on_the_operations_page_and_there() -> None:
    found = set(
        re.findall(r'_?(?:F|f)inding\(\s*"([a-z-]+)"|_damaged\("([a-z-]+)"', (ROOT / "app/upkeep/fsck.py").read_text())
    )
    table = text_of(OPERATIONS).partition("| `fsck` says |")[2].partition("\n\n")[0]
    shown = {name for cells in rows(table) for name in re.findall(r"`([a-z]+-[a-z]+)`", cells[0])}
    assert {name for pair in found for name in pair if name} == shown - {"blob-healed"}  # which is news


# The wire


def documented_codes() -> dict[str, set[int]]:
    """The statuses under which the table of errors has each code."""
    found: dict[str, set[int]] = {}
    for cells in rows(text_of(HTTP).partition("\n## Errors")[2].partition("\n## ")[0]):
        if statuses := set(map(int, re.findall(r"\b[45][0-9]{2}\b", cells[0]))):
            without_remarks = re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)", "", cells[1])
            for code in re.findall(r"`([a-z-]+)`", without_remarks):
                found.setdefault(code, set()).update(statuses)
    return found


def kinds_of_errors(kind: type[StateroomError] = StateroomError) -> Iterator[type[StateroomError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from kinds_of_errors(child)


def test_every_code_in_the_table_of_errors_can_be_sent() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "app").rglob("*.py"))
    known = set(re.findall(r'"([a-z]+(?:-[a-z]+)*)"', sources)) - NEVER_ON_THE_WIRE
    assert documented_codes().keys() - known == set()


def test_a_code_stands_beside_its_status() -> None:
    shown = documented_codes()
    expected = {code: status for status, (code, _) in STATUS_CODES.items()}
    expected |= {kind.code: KINDS[kind].status for kind in kinds_of_errors() if kind in KINDS}
    expected |= {code: kind.status for code, kind in KINDS.items() if isinstance(code, str)}
    for code, status in expected.items():
        assert code in NEVER_ON_THE_WIRE or status in shown[code], (code, status)


def test_the_examples_of_the_openapi_document_are_errors_that_can_be_sent() -> None:
    shown, seen = documented_codes(), 0
    for name, operation in operations(DOCUMENT):
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values():
                if "code" in (example := content.get("example", {})):
                    assert int(status) in shown[example["code"]], (name, status)
                    seen += 1
    assert seen > 100


def test_every_route_is_on_the_page() -> None:
    page = code_of(text_of(HTTP))
    for path in DOCUMENT["paths"]:
        shown = path.replace("/v1/uploads/{namespace}/{name}/{upload_id}", "{url}")
        shown = shown.replace("/v1/models/{namespace}/{name}/checkpoints/{ref}", "C")
        shown = shown.replace("/v1/models/{namespace}/{name}", "M")
        assert re.search(rf"(^|[ ,]){re.escape(shown)}($|[ ,?])", page, re.MULTILINE), path


def test_every_parameter_and_every_field_of_an_answer_is_on_the_page() -> None:
    words = set(re.findall(r"\w+", code_of(text_of(HTTP))))
    fields = {name for schema in DOCUMENT["components"]["schemas"].values() for name in schema.get("properties", ())}
    parameters = {each["name"] for _, operation in operations(DOCUMENT) for each in operation.get("parameters", ())}
    assert len(fields) > 60
    assert fields - words == set()
    parts = {part for name in parameters for part in re.findall(r"\w+", name.partition(".")[0])}
    assert parts - {"upload_id"} - words == set()


def test_every_header_of_ours_is_on_the_page_and_there() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "app/api").rglob("*.py"))
    headers = r"(?<![\w`])(?:Stateroom|Idempotency)-[A-Z]\w+(?:-\w+)*"
    assert set(re.findall(headers, text_of(HTTP).replace("`", " "))) == set(re.findall(headers, sources))


def test_every_figure_is_on_the_operations_page_and_there(http: httpx.Client) -> None:
    sent = set(re.findall(r"^# TYPE (\S+)", http.get("/metrics").text, re.MULTILINE))
    sent = {name for name in sent if not name.endswith("_created")}
    assert sent == set(re.findall(r"`((?:stateroom|process)_[a-z_]+)`", text_of(OPERATIONS)))


# Python

SIGNATURE = re.compile(r"^`(?:(client|model|checkpoint)\.)?(\w+)\((.*)\)`$", re.MULTILINE)


def test_every_signature_on_the_clients_page_is_the_methods() -> None:
    kinds = {"client": stateroom.Client, "model": stateroom.Model, "checkpoint": stateroom.Checkpoint}
    shown = SIGNATURE.findall(text_of(CLIENT))
    assert len(shown) > 15
    for kind, name, parameters in shown:
        module = stateroom if hasattr(stateroom, name) else stateroom.archive
        method = getattr(kinds[kind], name) if kind else getattr(module, name)
        signature = inspect.signature(method)
        plain = [
            str(each.replace(annotation=each.empty)).replace("Ellipsis", "...").replace("'", '"')
            for each in signature.parameters.values()
            if each.name != "self"
        ]
        kinds_of = [each.kind for each in signature.parameters.values() if each.name != "self"]
        if each_keyword := [number for number, each in enumerate(kinds_of) if each is inspect.Parameter.KEYWORD_ONLY]:
            plain.insert(each_keyword[0], "*")
        if parameters != "ref, ...":
            assert parameters == ", ".join(plain), name


def test_every_field_of_what_the_client_returns_is_on_its_page() -> None:
    words = set(re.findall(r"\w+", code_of(text_of(CLIENT))))
    for kind in (stateroom.Checkpoint, stateroom.Component, stateroom.ModelSummary, stateroom.TensorInfo,
                 stateroom.Report, stateroom.Mismatch, stateroom.SpooledCheckpoint, stateroom.Alias,
                 stateroom.AliasChange, stateroom.Event, stateroom.Webhook, stateroom.WebhookDelivery):  # fmt: skip
        assert {name for name in kind.__dataclass_fields__ if not name.startswith("_")} - words == set(), kind
