"""The command line, as processes that speak to a real server."""

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stateroom import Client
from tests.client.conftest import Answer, StartScripted
from tests.client.slow_relay import slow_relay
from tests.conftest import StartServer
from tests.support.commands import run_program
from tests.support.server import Server, server_environment, start_server
from tests.support.waiting import LONG_ENOUGH, assert_soon

STATEROOM = [sys.executable, "-m", "stateroom._cli.main"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for this module, on SQLite: what the command line prints doesn't depend on the database."""
    running = start_server(tmp_path_factory.mktemp("cli") / "data", env={"STATEROOM_DURABLE": "off"})
    yield running
    running.kill()


@pytest.fixture
def cli(server: Server, tmp_path: Path) -> "Cli":
    return Cli(tmp_path, {"STATEROOM_URL": server.base_url})


class Cli:
    """Runs ``stateroom``, in a folder of the test's own."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = {**server_environment({"STATEROOM_RETRY_SECONDS": "0", **env}), "NO_PROXY": "*"}

    def __call__(self, *arguments: str | Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess:
        words = [*map(str, arguments)]
        return run_program("stateroom._cli.main", words, {**self.env, **env}, stdin=stdin, cwd=self.folder)

    def ok(self, *arguments: str | Path) -> str:
        """What it printed, having done what it was asked for without a complaint."""
        done = self(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def json(self, *arguments: str | Path):
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, code: int, *arguments: str | Path, **env: str) -> str:
        """Its complaint: one line, with nothing on stdout."""
        done = self(*arguments, **env)
        assert done.stdout == ""
        assert re.fullmatch(r"stateroom: [^\n]+\n", done.stderr), done.stderr
        assert done.returncode == code, done.stderr
        return done.stderr

    def store(self, model: str, *files: str | Path) -> None:
        """What ``push`` does, without starting a process."""
        with Client(self.env["STATEROOM_URL"]) as client:
            for file in files:
                client.model(model).upload(self.folder / file)

    def start(self, *arguments: str | Path, env: dict[str, str], **streams) -> subprocess.Popen:
        return subprocess.Popen(
            [*STATEROOM, *map(str, arguments)],
            cwd=self.folder, env={**self.env, **env}, start_new_session=True, **streams,
        )  # fmt: skip


@pytest.fixture
def general(tmp_path: Path) -> Path:
    """A general checkpoint of a small net and its optimizer."""
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    net(torch.zeros(1, 4)).sum().backward()
    optimizer.step()
    path = tmp_path / "general.tar"
    states = {"model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    torch.save({"epoch": 3, "loss": 0.25, **states}, path)
    return path


def rows(table: str) -> list[list[str]]:
    """The cells of a table, which are at least two blanks apart."""
    return [re.split(r"  +", line.strip()) for line in table.splitlines()]


# push


def test_push_stores_a_file_and_says_as_what(cli: Cli, general: Path, model_name: str) -> None:
    said = cli.ok("push", general, model_name)
    assert re.fullmatch(rf"{model_name}@1  \S+general\.tar, [\d.]+ kB, [\d.]+ kB new\n", said)


def test_push_takes_all_that_describes_a_checkpoint(cli: Cli, general: Path, model_name: str) -> None:
    described = ["--epoch", "7", "--step", "900", "--loss", "0.5", "--run", "nightly", "--metric", "acc=0.75",
                 "--metric", "f1=nan", "--tag", "by=me=you"]  # fmt: skip
    (stored,) = cli.json("push", general, model_name, *described)
    assert [stored[name] for name in ("epoch", "step", "loss", "run")] == [7, 900, 0.5, "nightly"]
    assert (stored["metrics"], stored["tags"]) == ({"acc": 0.75, "f1": None}, {"by": "me=you"})
    assert stored == cli.json("show", f"{model_name}@1")
    assert "acc=0.75, f1=not finite" in cli.ok("show", model_name)


def test_push_stores_several_files_in_their_order(cli: Cli, general: Path, model_name: str) -> None:
    torch.save({"weight": torch.ones(2)}, cli.folder / "flat.pt")
    stored = cli.json("push", general, "flat.pt", model_name)
    assert [(each["version"], each["epoch"]) for each in stored] == [(1, 3), (2, None)]
    assert [line.split()[0] for line in cli.ok("push", general, "flat.pt", model_name).splitlines()] == [
        f"{model_name}@3",
        f"{model_name}@4",
    ]


def test_push_ends_with_the_first_refused_file_and_has_told_of_those_before(
    cli: Cli, general: Path, model_name: str
) -> None:
    (cli.folder / "no.pt").write_text("no checkpoint")
    done = cli("push", general, "no.pt", general, model_name, "--json")
    assert done.returncode == 1
    assert [each["version"] for each in json.loads(done.stdout)] == [1]
    assert done.stderr.startswith("stateroom: the file was not written by torch.save or safetensors")
    assert len(cli.json("ls", model_name)) == 1


def test_best_is_set_and_then_picked(cli: Cli, general: Path, model_name: str) -> None:
    cli.ok("push", general, model_name, "--metric", "acc=0.5")
    cli.ok("push", general, model_name, "--metric", "acc=0.25")
    assert cli.ok("best", model_name, "max:acc") == f"{model_name}: best is max:acc\n"
    assert cli.json("show", f"{model_name}@best")["version"] == 1
    assert cli.json("best", model_name, "min:acc")["best"] == "min:acc"
    assert cli.json("show", f"{model_name}@best")["version"] == 2
    cli.fails(2, "best", model_name, "acc")
    cli.fails(3, "best", "tests/there-is-none", "min:loss")


# pull


def test_pull_brings_the_file_back_byte_for_byte(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general)
    name = f"{model_name.partition('/')[2]}-v1.pt"
    assert re.fullmatch(rf"{model_name}@1  {name}, [\d.]+ kB\n", cli.ok("pull", model_name))
    assert (cli.folder / name).read_bytes() == general.read_bytes()
    answer = cli.json("pull", f"{model_name}@best", "-o", "again.tar")
    assert answer == {"model": model_name, "version": 1, "path": "again.tar", "bytes": general.stat().st_size}
    assert (cli.folder / "again.tar").read_bytes() == general.read_bytes()


def test_pull_takes_a_device_that_a_bare_load_obeys(cli: Cli, model_name: str) -> None:
    torch.save({"epoch": 1, "net": {"weight": torch.ones(2)}}, cli.folder / "some.pt")
    cli.store(model_name, "some.pt")
    cli.ok("pull", model_name, "--device", "meta", "-o", "meta.pt")
    assert torch.load(cli.folder / "meta.pt")["net"]["weight"].device.type == "meta"


def test_pull_takes_one_state_dict_or_a_part_of_it(cli: Cli, general: Path, model_name: str) -> None:
    whole = torch.load(general)
    cli.store(model_name, general)
    answer = cli.json("pull", model_name, "--state-dict")
    assert answer["path"] == f"{model_name.partition('/')[2]}-v1-state_dict.pt"
    state = torch.load(cli.folder / answer["path"], weights_only=True)
    assert list(state) == list(whole["model_state_dict"])
    assert all(torch.equal(state[key], tensor) for key, tensor in whole["model_state_dict"].items())

    part = ["--include", "0.*", "--include", "2.*", "--exclude", "*.bias", "--strip-prefix", "0.", "--rename", "2.=>b."]
    cli.ok("pull", model_name, *part[:-4], "-o", "part.pt")
    assert list(torch.load(cli.folder / "part.pt")) == ["0.weight", "2.weight"]
    cli.ok("pull", model_name, "--strip-prefix", "0.", "--rename", "2.=>b.", "--add-prefix", "x.", "-o", "part.pt")
    assert list(torch.load(cli.folder / "part.pt")) == ["x.weight", "x.bias", "x.b.weight", "x.b.bias"]
    cli.ok("pull", model_name, "--component", "optimizer_state_dict", "--device", "cpu", "-o", "optimizer.pt")
    assert torch.load(cli.folder / "optimizer.pt")["param_groups"] == whole["optimizer_state_dict"]["param_groups"]


@pytest.mark.parametrize("size", [1_000, 2_000_000])
def test_pull_brings_what_save_sent_as_a_file(size: int, cli: Cli, model_name: str) -> None:
    weight = torch.rand(size)
    with Client(cli.env["STATEROOM_URL"]) as client:
        client.model(model_name).save({"weight": weight})
    cli.ok("pull", model_name, "-o", "x.pt")
    assert torch.equal(torch.load(cli.folder / "x.pt")["weight"], weight)


def test_pull_writes_no_format_under_the_name_of_another(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general)
    assert "ends in .safetensors" in cli.fails(2, "pull", model_name, "-o", "x.safetensors")
    assert "the name of a torch file" in cli.fails(2, "pull", model_name, "-o", "x.pt", "--format", "safetensors")
    assert "ends in .safetensors" in cli.fails(2, "pull", model_name, "-o", "x.safetensors", "--format", "pt")
    cli.ok("pull", model_name, "-o", "x.safetensors", "--state-dict")
    assert set(load_file(cli.folder / "x.safetensors")) == set(torch.load(general)["model_state_dict"])
    cli.store(model_name, "x.safetensors")
    assert "the name of a torch file" in cli.fails(2, "pull", model_name, "-o", "y.pth")
    cli.ok("pull", model_name, "-o", "y.pth", "--device", "cpu")
    assert cli.json("pull", model_name)["path"].endswith(".safetensors")


def test_a_pull_that_fails_leaves_what_was_there(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general)
    (cli.folder / "here.pt").write_text("mine")
    cli.fails(3, "pull", model_name, "--include", "nothing*", "-o", "here.pt")
    assert (cli.folder / "here.pt").read_text() == "mine"
    assert {path.name for path in cli.folder.iterdir()} == {"here.pt", "general.tar"}


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_pull_that_is_broken_off_leaves_no_part_of_a_file(
    cli: Cli, server: Server, model_name: str, ending: signal.Signals, code: int
) -> None:
    store_large(cli, model_name)
    target = cli.folder / "target"
    target.mkdir()
    if signal.getsignal(ending) is signal.SIG_IGN:  # tests that run in the background would hand that on
        signal.signal(ending, signal.SIG_DFL)
    with slow_relay(server.port) as relay:
        pulling = cli.start("pull", model_name, "-o", "target", env={"STATEROOM_URL": relay.url})
        try:
            assert_soon(lambda: any(map(os.path.getsize, target.iterdir())))
            pulling.send_signal(ending)
            assert pulling.wait(LONG_ENOUGH) == code
        finally:
            pulling.kill()
            pulling.wait()
    assert list(target.iterdir()) == []


# ls


def test_ls_lists_the_checkpoints_that_are_asked_for(cli: Cli, server: Server, model_name: str) -> None:
    torch.save({"weight": torch.ones(2)}, cli.folder / "flat.pt")
    with Client(server.base_url) as client:
        for epoch, loss in enumerate([0.5, 0.25, 0.125, float("inf")]):
            run = "nightly" if epoch == 2 else "daily"
            client.model(model_name, run).upload(cli.folder / "flat.pt", epoch=epoch, loss=loss)
    found = cli.json("ls", model_name)
    assert [each["version"] for each in found] == [4, 3, 2, 1]
    assert (found[0]["loss"], found[0]["nonfinite"]) == (None, ["loss"])
    assert [each["version"] for each in cli.json("ls", model_name, "--order", "loss", "--limit", "2")] == [3, 2]
    where = ["--where", "epoch.ge=1", "--where", "loss.lt=0.5"]
    assert [each["version"] for each in cli.json("ls", model_name, *where)] == [3, 2]
    assert [each["version"] for each in cli.json("ls", model_name, "--run", "nightly")] == [3]

    header, *lines = rows(cli.ok("ls", model_name))
    assert header == ["VERSION", "EPOCH", "STEP", "LOSS", "METRICS", "RUN", "SIZE", "CREATED"]
    assert [line[:4] for line in lines] == [
        ["4", "3", "-", "not finite"], ["3", "2", "-", "0.125"], ["2", "1", "-", "0.25"], ["1", "0", "-", "0.5"],
    ]  # fmt: skip
    local = datetime.fromisoformat(found[0]["created_at"]).astimezone()
    assert lines[0][5] == "daily"
    assert lines[0][7] == f"{local:%Y-%m-%d %H:%M}"


def test_ls_without_a_model_lists_the_models(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general, general)
    (mine,) = (each for each in cli.json("ls") if each["name"] == model_name)
    assert (mine["checkpoints"], mine["best"]) == (2, "min:loss")
    header, *lines = rows(cli.ok("ls"))
    assert header == ["MODEL", "CHECKPOINTS", "BEST", "CREATED"]
    assert [model_name, "2", "min:loss"] in [line[:3] for line in lines]
    assert len(cli.json("ls", "--limit", "1")) == 1


def test_times_are_local(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general)
    created = datetime.fromisoformat(cli.json("show", model_name)["created_at"])
    there = cli("show", model_name, TZ="XXX-05:30").stdout
    assert created.utcoffset().total_seconds() == 0
    assert f"{datetime.fromtimestamp(created.timestamp() + 5.5 * 3600, tz=created.tzinfo):%Y-%m-%d %H:%M}" in there


# show


def test_scenario_01_show_lists_every_key_with_its_size_and_every_param_group(
    cli: Cli, general: Path, model_name: str
) -> None:
    whole = torch.load(general)
    cli.store(model_name, general)
    shown = cli.json("show", f"{model_name}@epoch:3", "--tensors")
    assert (shown["version"], shown["epoch"], shown["loss"]) == (1, 3, 0.25)
    assert [
        (each["key"], each["shape"], each["dtype"], each["bytes"])
        for each in shown["tensors"]
        if each["component"] == "model_state_dict"
    ] == [(key, list(value.shape), "float32", value.nbytes) for key, value in whole["model_state_dict"].items()]
    groups = json.loads(json.dumps(whole["optimizer_state_dict"]["param_groups"]))
    assert shown["param_groups"] == {"optimizer_state_dict": groups}

    said = cli.ok("show", model_name, "--tensors")
    cells = rows(said)
    assert ["0.weight", "3 x 4", "float32", "cpu", "48 bytes"] in cells
    assert ["2.bias", "2", "float32", "cpu", "8 bytes"] in cells
    assert ["state.0.momentum_buffer", "3 x 4", "float32", "cpu", "48 bytes"] in cells
    assert "\nparam_groups[0]: lr=0.001, momentum=0.9, " in said
    assert "params=[0, 1, 2, 3]" in said
    assert ["model_state_dict", "state_dict", "4", "92 bytes"] in cells


def test_show_without_tensors_is_about_the_checkpoint(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general)
    assert "tensors" not in cli.json("show", model_name)
    said = rows(cli.ok("show", model_name))
    assert ["epoch", "3"] in said
    assert ["optimizer_state_dict", "optimizer", "4", "92 bytes"] in said


def test_show_computes_the_sha256_that_sha256sum_prints(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general)
    assert cli.json("show", model_name)["sha256"] is None
    sha256 = hashlib.sha256(general.read_bytes()).hexdigest()
    assert ["sha256", sha256] in rows(cli.ok("show", model_name, "--sha256"))
    assert cli.json("show", model_name)["sha256"] == sha256


def test_a_long_key_is_shown_whole_where_no_terminal_is_too_narrow(cli: Cli, model_name: str) -> None:
    key = ".".join(["layers"] * 40)
    torch.save({key: torch.ones(2), "tied": (weight := torch.ones(3)), "to": weight}, cli.folder / "long.pt")
    cli.store(model_name, "long.pt")
    cells = rows(cli.ok("show", model_name, "--tensors"))
    assert [key, "2", "float32", "cpu", "8 bytes"] in cells
    assert ["tied", "3", "float32", "cpu", "12 bytes", "to"] in cells


def test_nothing_that_a_file_or_tag_holds_steers_the_terminal(cli: Cli, model_name: str) -> None:
    torch.save({"weight\x1b[2J\n": torch.ones(2)}, cli.folder / "odd.pt")
    cli.ok("push", "odd.pt", model_name, "--tag", "by=\x1b]0;me\x07[bold]")
    said = cli.ok("show", model_name, "--tensors")
    assert said.isprintable() or {c for c in said if not c.isprintable()} == {"\n"}
    assert r"weight\x1b[2J\n" in said
    assert r"by=\x1b]0;me\x07[bold]" in said


# rm


def test_rm_deletes_by_number(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general, general, general)
    deleted = cli.json("rm", "--yes", f"{model_name}@1", f"{model_name}@v2")
    assert [(each["model"], each["version"]) for each in deleted] == [(model_name, 1), (model_name, 2)]
    assert all(datetime.fromisoformat(each["purged_at"]) > datetime.now(UTC) for each in deleted)
    assert cli.ok("rm", "-y", f"{model_name}@3").startswith(f"deleted {model_name}@3; until ")
    assert cli.json("ls", model_name) == []


def test_rm_deletes_a_model_that_has_no_checkpoint(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general)
    assert f"{model_name} has a checkpoint" in cli.fails(1, "rm", "-y", model_name)
    assert cli.json("rm", "-y", "--purge", f"{model_name}@1", model_name) == [
        {"model": model_name, "version": 1, "purged_at": None},
        {"model": model_name},
    ]
    assert f"no model {model_name}" in cli.fails(3, "ls", model_name)


def test_rm_ends_with_the_first_that_is_not_there_and_has_told_of_those_before(
    cli: Cli, general: Path, model_name: str
) -> None:
    cli.store(model_name, general, general)
    done = cli("rm", "--yes", "--json", f"{model_name}@1", f"{model_name}@9", f"{model_name}@2")
    assert done.returncode == 3
    assert [each["version"] for each in json.loads(done.stdout)] == [1]
    assert "no version 9" in done.stderr
    assert [each["version"] for each in cli.json("ls", model_name)] == [2]


def test_rm_asks_and_deletes_nothing_unless_the_answer_is_yes(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, general, general)
    assert "--yes" in cli.fails(2, "rm", f"{model_name}@1")
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        screen, ended = on_a_terminal(cli, "rm", f"{model_name}@1", answer=answer, until=b"[y/N]")
        assert f"Delete {model_name}@1?" in screen
        assert ended == code
        assert len(cli.json("ls", model_name)) == 1 + code


# What all commands share


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (1, ("push", "no.pt", "{}"), "the file was not written by torch.save or safetensors"),
        (2, ("pull", "{}", "-o", "no.pt/x.pt"), "the folder no.pt does not exist"),
        (2, ("push", "absent.pt", "{}"), "absent.pt"),
        (2, ("push", "{}"), "Missing argument"),
        (2, ("push", "no.pt", "{}", "--metric", "acc"), "NAME=VALUE"),
        (2, ("push", "no.pt", "{}", "--metric", "acc=high"), "could not convert"),
        (2, ("push", "no.pt", "{}", "--tag", "a=1", "--tag", "a=2"), "given twice"),
        (2, ("push", "no.pt", "{}@3"), "give a model, as in namespace/name"),
        (2, ("pull", "{}@"), "has no ref"),
        (2, ("pull", "{}", "--device", "abacus"), "abacus"),
        (2, ("pull", "{}", "--rename", "a.b"), "OLD=>NEW"),
        (2, ("pull", "{}", "-o", "nowhere/x.pt"), "the folder nowhere does not exist"),
        (2, ("ls", "resnet"), "namespace/name"),
        (2, ("ls", "{}", "--where", "epohc=3"), "did you mean 'epoch'"),
        (2, ("ls", "--order", "loss"), "need a model"),
        (2, ("rm", "{}@latest", "--yes"), "give a version number"),
        (2, ("list",), "list"),
        (2, ("ls", "{}", "--colour"), "--colour"),
        (2, ("ls", "--url", "nonsense"), "not a server URL"),
        (3, ("ls", "nobody/has-this"), "nobody/has-this"),
        (3, ("show", "{}@77"), "no version 77"),
        (3, ("pull", "{}", "--component", "modle"), "model"),
        (3, ("pull", "{}", "--include", "0.wieght"), "close matches: 0.weight"),
        (2, ("rm", "resnet", "--yes"), "namespace/name"),
        (3, ("rm", "{}@77", "--yes"), "77"),
        (3, ("rm", "nobody/has-this", "--yes"), "nobody/has-this"),
        (5, ("ls", "--url", "http://127.0.0.1:9"), "no Stateroom server responds"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    cli: Cli, general: Path, model_name: str, code: int, arguments: tuple[str, ...], said: str
) -> None:
    (cli.folder / "no.pt").write_text("no checkpoint")
    if code == 3 or "--device" in arguments:
        cli.store(model_name, general)
    assert said in cli.fails(code, *(argument.format(model_name) for argument in arguments))


def test_a_server_that_is_away_is_waited_for_in_words_and_ctrl_c_ends_the_wait(cli: Cli) -> None:
    away = {"STATEROOM_RETRY_SECONDS": "1000", "STATEROOM_URL": "http://127.0.0.1:9"}
    process = cli.start("ls", env=away, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert re.fullmatch(r"stateroom: no Stateroom server responds at .* Retrying for up to 1000 s\.\n", line)
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG_ENOUGH) == 130


def test_a_token_is_needed_where_the_server_has_one(fresh_server: StartServer, tmp_path: Path) -> None:
    server = fresh_server(env={"STATEROOM_SERVER_TOKEN": "secret"})
    cli = Cli(tmp_path, {"STATEROOM_URL": server.base_url})
    cli.fails(4, "ls")
    cli.fails(4, "ls", "--token", "wrong")
    assert cli.json("ls", "--token", "secret") == []
    assert json.loads(cli("ls", "--json", STATEROOM_TOKEN="secret").stdout) == []


def test_common_options_stand_before_the_command_or_after_it(cli: Cli, server: Server) -> None:
    before = cli("--url", server.base_url, "--json", "ls", "--limit", "1", STATEROOM_URL="http://127.0.0.1:9")
    after = cli("ls", "--limit", "1", "--json", "--url", server.base_url, STATEROOM_URL="http://127.0.0.1:9")
    assert (before.returncode, before.stderr, before.stdout) == (0, "", after.stdout)
    assert isinstance(json.loads(after.stdout), list)


def test_it_says_its_version_and_explains_itself(cli: Cli) -> None:
    assert re.fullmatch(r"stateroom \d+\.\d+\.\d+\n", cli.ok("--version"))
    for command in ("push", "pull", "ls", "show", "rm"):
        assert f"stateroom {command}" in cli.ok(command, "--help")
    bare = cli()
    assert (bare.returncode, bare.stdout) == (2, "")
    assert "Commands:" in bare.stderr


def test_a_reader_that_hangs_up_is_no_accident(cli: Cli, model_name: str) -> None:
    torch.save({f"layers.{i}": torch.ones(1) for i in range(3000)}, cli.folder / "many.pt")
    cli.store(model_name, "many.pt")
    reads, writes = os.pipe()
    os.close(reads)
    showing = cli.start("show", model_name, "--tensors", "--json", env={}, stdout=writes, stderr=subprocess.PIPE)
    os.close(writes)
    assert showing.communicate(timeout=LONG_ENOUGH) == (None, b"")
    assert showing.returncode == 1


def test_aliases_are_moved_listed_rolled_back_and_removed(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, *[general] * 3)
    assert cli.ok("alias", model_name, "prod", "1", "--note", "works") == f"prod is {model_name}@1\n"
    assert cli.ok("alias", model_name, "prod", "latest", "--expect", "1") == f"prod is {model_name}@3, before: 1\n"
    assert "means 3 now, and 1 was expected" in cli.fails(1, "alias", model_name, "prod", "2", "--expect", "1")
    assert "no such alias was expected" in cli.fails(1, "alias", model_name, "prod", "2", "--expect", "none")
    assert cli.json("alias", model_name, "prod")["version"] == 3
    assert cli.json("show", f"{model_name}@prod")["aliases"] == ["prod"]
    assert "the alias prod" in cli.fails(1, "rm", f"{model_name}@3", "--yes")
    assert cli.ok("alias", model_name, "prod", "--rollback").startswith(f"prod is {model_name}@1, before: 3")
    assert cli.ok("alias", model_name, "prod", "--protect").endswith(", protected\n")
    header, line = rows(cli.ok("alias", model_name))
    assert header == ["ALIAS", "VERSION", "BEFORE", "PROTECTED", "MOVED", "BY", "NOTE"]
    assert (line[:4], line[-1]) == (["prod", "1", "3", "yes"], "rollback from 3")
    assert [row[:2] for row in rows(cli.ok("alias", model_name, "prod", "--history"))[1:]] == [
        ["4", "1"], ["3", "1"], ["2", "3"], ["1", "1"],
    ]  # fmt: skip
    assert cli.ok("alias", model_name, "prod", "--rm") == "removed prod\n"
    assert cli.json("alias", model_name) == []


def test_a_namespace_is_shown_and_gets_quotas(cli: Cli, general: Path, model_name: str) -> None:
    name = model_name.rpartition("/")[2][-100:].lstrip("-")
    cli.store(f"{name}/m", general)
    header, line = rows(cli.ok("namespace", name, "--quota-bytes", "5 GB", "--quota-checkpoints", "1"))
    assert header == ["NAMESPACE", "MODELS", "CHECKPOINTS", "STORED", "LOGICAL"]
    assert line[:3] == [name, "1", "1 of 1"]
    assert line[3].endswith(" of 5.0 GB")
    assert "its quota is 1" in cli.fails(1, "push", general, f"{name}/m")
    assert "'x' is not a number" in cli.fails(2, "namespace", name, "--quota-checkpoints", "x")
    assert "is not a size" in cli.fails(2, "namespace", name, "--quota-bytes", "x")
    shown = cli.json("namespace", name, "--quota-bytes", "none")
    assert (shown["quota_bytes"], shown["quota_checkpoints"]) == (None, 1)
    assert shown in cli.json("namespaces")
    assert name in cli.ok("namespaces")
    assert "there is no namespace" in cli.fails(3, "namespace", f"{name}-other")


def test_lineage_lists_both_directions(cli: Cli, general: Path, model_name: str) -> None:
    cli.store(model_name, *[general] * 2)
    first, second = f"{model_name}@1", f"{model_name}@2"
    (pushed,) = cli.json("push", general, model_name, "--parent", "1", "--warm-started-from", second)
    assert (pushed["parent"], pushed["warm_started_from"]) == (first, second)
    found = cli.json("lineage", model_name, "1")
    assert (found["checkpoint"], found["ancestors"]) == (first, [])
    assert [(each["model"], each["version"]) for each in found["descendants"]] == [(model_name, 3)]
    lines = rows(cli.ok("lineage", f"{model_name}@latest"))
    assert ["1", second, "warm started from", f"{model_name}@3", "live"] in [line[:5] for line in lines]
    assert ["descendants: none"] in lines
    assert ["parent", first] in rows(cli.ok("show", f"{model_name}@3"))
    assert "a checkpoint; give a model" in cli.fails(2, "lineage", f"{model_name}@3", "1")


def test_a_folder_is_pushed_listed_and_pulled_to_a_new_folder(cli: Cli, model_name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "deep").mkdir(parents=True)
    torch.save({"w": torch.ones(3)}, folder / "model.pt")
    (folder / "deep" / "\u202econfig.json").write_text("{}")
    (pushed,) = cli.json("push", folder, model_name)
    assert pushed["format"] == "folder"
    listed = cli.json("files", model_name)
    assert [(file["path"], file["bytes"], file["format"]) for file in listed] == [
        ("deep/\u202econfig.json", 2, None),
        ("model.pt", (folder / "model.pt").stat().st_size, "torch_zip"),
    ]
    lines = rows(cli.ok("files", model_name))
    assert lines[1][0] == "deep/\\u202econfig.json"
    assert lines[2][2:] == ["torch_zip", "''"]
    pulled = cli.json("pull", model_name)
    assert pulled["path"] == f"{model_name.rpartition('/')[2]}-v1"
    assert pulled["bytes"] == sum(file["bytes"] for file in listed)
    assert "not an empty folder" in cli.fails(2, "pull", model_name)
    cli.ok("pull", model_name, "-o", "again")


def test_diff_and_stats_are_tables_that_no_key_steers(cli: Cli, model_name: str, tmp_path: Path) -> None:
    for number in (1, 2):
        weight = torch.full((30, 40), float(number))
        torch.save({"w": weight, "\x1b[2Jb": torch.ones(3), f"only{number}": weight[:2]}, tmp_path / "x.pt")
        cli.json("push", tmp_path / "x.pt", model_name, "--scan")
    lines = rows(cli.ok("diff", model_name, "1", "2", "--numeric"))
    assert lines[0] == [f"{model_name}@1 -> {model_name}@2: 1 changed, 1 added, 1 removed, 1 same"]
    (changed,) = [line for line in lines if line[0] == "changed"]
    assert [changed[2], changed[4:]] == ["w", ["1", "34.64", "1", "1"]]
    assert {line[0] for line in lines[2:]} >= {"added", "removed"}
    found = cli.json("diff", model_name, "1", "2", "--component", "")
    assert found["summary"] == {"changed": 1, "moved": 0, "added": 1, "removed": 1, "same": 1}
    assert found["items"][0]["base"] == {"dtype": "float32", "shape": [30, 40], "bytes": 4800}
    shown = cli.ok("diff", model_name, "1", f"{model_name}@latest", "--all") + cli.ok("stats", model_name, "2")
    assert "\x1b[2J" not in shown
    assert "\\x1b[2Jb" in shown
    (line,) = [line for line in rows(cli.ok("stats", f"{model_name}@2", "--include", "w")) if line[0] == "w"]
    assert line == ["w", "30 x 40", "float32", "2", "2", "2", "0", "69.28", "0", "0", "0"]
    assert cli.json("stats", model_name, "1", "--include", "only*")["items"][0]["key"] == "only1"
    assert "has no version 99" in cli.fails(3, "diff", model_name, "1", "99")


def test_one_tensor_and_a_part_of_it_become_safetensors_files(cli: Cli, model_name: str, tmp_path: Path) -> None:
    weight = torch.arange(240.0).view(12, 20)
    torch.save({"a/w": weight, "b": torch.ones(3)}, tmp_path / "x.pt")
    cli.store(model_name, tmp_path / "x.pt")
    name = model_name.partition("/")[2]
    assert f"{name}-v1-tensor.safetensors" in cli.ok("tensor", model_name, "latest", "a/w")
    whole = load_file(tmp_path / f"{name}-v1-tensor.safetensors")
    assert torch.equal(whole["a/w"], weight)
    options = ("--rows", "-6:", "--dim", "1", "--shard", "2/3", "--dtype", "bf16", "-o", "part.safetensors")
    made = cli.json("tensor", model_name, "1", "a/w", *options)
    assert (made["key"], made["path"], made["version"]) == ("a/w", "part.safetensors", 1)
    part = load_file(tmp_path / "part.safetensors")["a/w"]
    assert torch.equal(part, weight[-6:].chunk(3, dim=1)[2].bfloat16())
    assert made["bytes"] == (tmp_path / "part.safetensors").stat().st_size
    assert "did you mean 'a/w'" in cli.fails(3, "tensor", model_name, "1", "a/v")
    assert "has shape [12, 20]" in cli.fails(2, "tensor", model_name, "1", "a/w", "--rows", "0:13")
    for option, value in (("--rows", "1:2:3"), ("--rows", "5"), ("--shard", "1-2"), ("--output", "x.pt")):
        assert option in cli.fails(2, "tensor", model_name, "1", "a/w", option, value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prod", "1", "--rollback"), "give one of"),
        (("--rollback",), "which alias?"),
        (("prod", "--expect", "1"), "--expect"),
        (("prod", "--note", "x"), "--note"),
        (("latest", "1"), "not a valid alias"),
    ],
)
def test_a_wrong_change_of_an_alias_is_one_complaint(
    cli: Cli, model_name: str, arguments: tuple[str, ...], said: str
) -> None:
    assert said in cli.fails(2, "alias", model_name, *arguments)


def test_something_else_that_answers_is_an_error_and_no_traceback(cli: Cli, scripted: StartScripted) -> None:
    other = scripted(lambda _: Answer(body=b"<html>Welcome</html>"))
    assert "not a Stateroom server" in cli.fails(1, "ls", "--url", other.url)


def test_a_bar_shows_how_far_a_transfer_is_on_a_terminal_and_nowhere_else(
    cli: Cli, server: Server, model_name: str
) -> None:
    store_large(cli, model_name)
    with slow_relay(server.port) as relay:
        on_relay = {"STATEROOM_URL": relay.url}
        screen, code = on_a_terminal(
            cli, "pull", model_name, "-o", "out.pt", env=on_relay, until=b"/20.0 MB", then=relay.hurry
        )
        assert code == 0
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
        assert re.search(rf"{model_name}@1 \S+ +[\d.]+/20\.0 MB [\d.]+ [kM]?B/s", plain)
        assert f"{model_name}@1 {'━' * 20} 20.0/20.0 MB" in plain
        assert f"{model_name}@1  out.pt, 20.0 MB" in screen
    assert cli("pull", model_name, "-o", "out.pt").stderr == ""


def test_ls_on_a_terminal_says_how_long_ago_and_draws_the_loss(cli: Cli, general: Path, model_name: str) -> None:
    for run, loss in [("a", 0.9), ("a", 0.5), ("a", 0.1), ("b", 1.0)]:
        cli.ok("push", general, model_name, "--run", run, "--loss", str(loss))
    screen, code = on_a_terminal(cli, "ls", model_name, until=b"nothing")
    assert code == 0
    assert len(re.findall(r" just now|\d min ago", screen)) == 4
    assert re.search(r"loss of a +█▅▁ +0\.9 to 0\.1", screen)
    assert "loss of b" not in screen
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", cli.ok("ls", model_name))
    assert "█" not in cli.ok("ls", model_name)
    screen, _ = on_a_terminal(cli, "ls", model_name, "--json", until=b"nothing")
    assert [each["version"] for each in json.loads(screen)] == [4, 3, 2, 1]


def test_show_lists_the_keys_as_a_tree_on_a_terminal_or_where_asked(cli: Cli, model_name: str) -> None:
    torch.save({"layer.0.w": torch.ones(2), "layer.1.\x1b[2J": torch.ones(3)}, cli.folder / "net.pt")
    cli.store(model_name, "net.pt")
    tree = [["layer", "2 tensors", "20 bytes"], ["0.w", "2", "float32", "cpu", "8 bytes"]]
    tree.append([r"1.\x1b[2J", "3", "float32", "cpu", "12 bytes"])
    assert rows(cli.ok("show", model_name, "--tree"))[-3:] == tree
    assert "\n  0.w" in cli.ok("show", model_name, "--tree")
    screen, _ = on_a_terminal(cli, "show", model_name, "--tensors", until=b"nothing")
    assert rows(screen.replace("\r", ""))[-3:] == tree
    screen, _ = on_a_terminal(cli, "show", model_name, "--tensors", "--no-tree", until=b"nothing")
    assert rows(screen.replace("\r", ""))[-2] == ["layer.0.w", "2", "float32", "cpu", "8 bytes"]


@pytest.mark.parametrize("whole", [False, True], ids=["model", "namespace"])
def test_watch_prints_changes_as_they_happen(
    cli: Cli, server: Server, general: Path, model_name: str, whole: bool
) -> None:
    watched, printed = model_name.partition("/")[0] if whole else model_name, cli.folder / "printed"
    cli.store(model_name, general)
    with printed.open("w") as out, Client(cli.env["STATEROOM_URL"]) as client:

        def are_waiting(count: int) -> bool:
            with server.client() as http:
                return f"stateroom_waiting_clients {count}.0" in http.get("/metrics").text

        assert_soon(lambda: are_waiting(0))  # those of other tests have left
        watching = cli.start("watch", watched, "--kind", "alias-moved", env={}, stdout=out, stderr=out)
        try:
            assert_soon(lambda: are_waiting(1))
            client.model(model_name).alias("prod", 1)
            assert_soon(lambda: printed.read_text().endswith("\n"))
        finally:
            watching.send_signal(signal.SIGINT)
            assert watching.wait(LONG_ENOUGH) == 130
    line = rf"\d\d:\d\d:\d\d  alias-moved  {re.escape(model_name)}@1  prod\n\n?"
    assert re.fullmatch(line, printed.read_text())


def test_open_prints_the_address_of_a_page(cli: Cli, server: Server) -> None:
    assert cli.ok("open") == f"{server.base_url}/\n"
    assert cli.ok("open", "vision/net") == f"{server.base_url}/models/vision/net\n"
    assert cli.json("open", "vision/net@best") == {"url": f"{server.base_url}/models/vision/net/checkpoints/best"}
    assert "namespace/name" in cli.fails(2, "open", "vision")


def test_a_shell_completes_commands_and_models(cli: Cli, server: Server, general: Path, model_name: str) -> None:
    cli.store(model_name, general)
    assert "complete_bash" in cli(_STATEROOM_COMPLETE="source_bash").stdout

    def completed(*words: str, **env: str) -> list[str]:
        asked = {"_STATEROOM_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["stateroom", *words])}
        done = cli(**asked, COMP_CWORD=str(len(words)), **env)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("wat") == ["watch"]
    assert_soon(lambda: completed("show", model_name[:-2]) == [model_name])  # it asks a server for two seconds only
    assert completed("show", "x", STATEROOM_URL="http://127.0.0.1:9") == []


def store_large(cli: Cli, model_name: str) -> None:
    """A checkpoint that takes a slow network a while."""
    torch.save({"weight": torch.zeros(5_000_000)}, cli.folder / "large.pt")
    cli.store(model_name, "large.pt")


def on_a_terminal(cli: Cli, *arguments: str, until: bytes, answer: bytes = b"", env=None, then=lambda: None):
    """What it wrote, having been given ``answer`` once it had written ``until``; and its exit code."""
    ours, its = pty.openpty()
    process = cli.start(*arguments, env={"COLUMNS": "200", **(env or {})}, stdin=its, stdout=its, stderr=its)
    os.close(its)
    seen, waiting = b"", True
    try:
        while data := read_or_end(ours):
            seen += data
            if waiting and until in seen:
                waiting = False
                os.write(ours, answer)
                then()
        return seen.decode(), process.wait(LONG_ENOUGH)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_or_end(terminal: int) -> bytes:
    """Nothing once nobody has the terminal open any more, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_a_deletion_says_how_to_undo_it(cli: Cli, general: Path) -> None:
    cli.ok("push", general, "cli/trash")
    assert cli.ok("pin", "cli/trash@1", "--reason", "why") == "pinned cli/trash@1\n"
    assert "why" in cli.ok("show", "cli/trash")
    assert cli.json("unpin", "cli/trash")["pin"] is None
    assert "stateroom restore cli/trash@1" in cli.ok("rm", "--yes", "cli/trash@1")
    assert "KEPT UNTIL" in cli.ok("ls", "cli/trash", "--trash")
    assert "trashed" in cli.ok("history", "cli/trash")
    assert cli.ok("restore", "cli/trash@1") == "restored cli/trash@1\n"
    assert cli.json("rm", "--yes", "--purge", "cli/trash@1") == [
        {"model": "cli/trash", "version": 1, "purged_at": None}
    ]
    assert [entry["state"] for entry in cli.json("history", "cli/trash")] == ["purged"]


def test_rules_of_retention_are_previewed_and_set(cli: Cli, general: Path) -> None:
    for epoch in ("1", "2", "3"):
        cli.ok("push", general, "cli/kept", "--epoch", epoch, "--slot", "last" if epoch == "3" else "other")
    none = "no rules of its own; those of its namespace hold, if there are any\n"
    assert cli.ok("retention", "cli/kept") == none
    options = ("--keep-last", "1", "--keep-best", "min:loss=2", "--keep-every", "2", "--thin-after", "1")
    preview = cli.ok("retention", "cli/kept", *options, "--dry-run")
    assert "0 to the trash" in preview
    assert "slot last" in preview
    told = "keep last: 1; keep best: 2 by min:loss; keep every: 2 epochs; thin after: 1 keep last\n"
    assert cli.ok("retention", "cli/kept", *options) == told
    assert cli.json("retention", "cli/kept")["keep_last"] == 1
    assert cli.ok("retention", "cli/kept", "--off") == none
    assert cli("retention", "cli/kept", "--off", "--keep-last", "1").returncode == 2
    assert cli.ok("retention", "cli-ns", "--keep-for", "30d") == "keep for: 30d\n"
    assert cli.ok("retention", "cli-ns") == "keep for: 30d\n"
    assert cli.ok("retention", "cli-ns", "--off") == "no rules\n"
    assert cli("retention", "cli/kept", "--keep-best", "max:acc=x").returncode == 2
