"""The files of deploy/: checked by their tools and schemas, and their commands run as processes with their settings."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import promql_parser
import pytest
import yaml

from app.process.serve import KILL_SECONDS
from app.settings import Settings
from tests.api.conftest import general
from tests.conftest import StartServer
from tests.support.commands import run
from tests.support.docs import ROOT, blocks
from tests.support.postgres import Postgres
from tests.support.s3 import S3
from tests.support.waiting import assert_soon

DEPLOY = ROOT / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()


def resource(name: str) -> dict:
    return yaml.safe_load((DEPLOY / f"kubernetes/{name}.yaml").read_text())


def container(name: str) -> dict:
    (found,) = resource(name)["spec"]["template"]["spec"]["containers"]
    return found


# Kubernetes


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("file", KUBERNETES, ids=lambda file: file.stem)
def test_each_resource_is_as_kubernetes_has_it(file: Path, version: str) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def test_what_selects_pods_selects_the_servers_and_not_the_migration() -> None:
    labels = resource("deployment")["spec"]["template"]["metadata"]["labels"]
    assert resource("deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for selector in (
        resource("service")["spec"]["selector"],
        resource("disruption-budget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= resource("migrate")["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"] for port in container("deployment")["ports"]}
    assert {port["targetPort"] for port in resource("service")["spec"]["ports"]} == ports


def test_pods_have_time_to_let_transfers_end() -> None:
    pause = int(container("deployment")["lifecycle"]["preStop"]["exec"]["command"][1])
    least = pause + Settings.model_fields["drain_seconds"].default + KILL_SECONDS
    assert resource("deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= least
    assert container("deployment")["readinessProbe"]["timeoutSeconds"] > 3


@pytest.mark.parametrize("name", ["deployment", "migrate"])
def test_pods_run_this_version_as_the_images_user_and_may_do_nothing_else(name: str) -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert container(name)["image"].endswith(f"/stateroom-server:{version[1]}")
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    of_pod = resource(name)["spec"]["template"]["spec"]["securityContext"]
    assert (of_pod["runAsNonRoot"], of_pod["runAsUser"], of_pod["runAsGroup"]) == (True, int(user[1]), int(user[2]))
    of_container = container(name)["securityContext"]
    assert of_container["readOnlyRootFilesystem"] is True
    assert of_container["allowPrivilegeEscalation"] is False
    assert of_container["capabilities"] == {"drop": ["ALL"]}


def environment(name: str) -> dict[str, str]:
    """The variables of a container, as Kubernetes makes them."""
    found: dict[str, str] = {}
    for source in container(name)["envFrom"]:
        kind, of = ("config", "data") if "configMapRef" in source else ("secret.example", "stringData")
        assert next(iter(source.values()))["name"] == resource(kind)["metadata"]["name"]
        found |= resource(kind)[of]
    return found | {each["name"]: each["value"] for each in container(name)["env"]}


def test_what_kubernetes_runs_migrates_and_serves_and_its_probes_succeed(
    fresh_server: StartServer, postgres: Postgres, s3: S3, tmp_path: Path
) -> None:
    url = postgres.empty_database()
    here = {
        "STATEROOM_DATABASE_URL": url,
        "STATEROOM_STORE_URL": s3.new_url(),
        "STATEROOM_SERVER_TOKEN": "secret",
        **s3.environment,
    }
    assert set(here) - {"STATEROOM_STORE_ENDPOINT"} <= set(environment("deployment"))
    migrated = run(
        *container("migrate")["args"], **{**environment("migrate"), **here, "STATEROOM_DATA_DIR": str(tmp_path)}
    )
    assert (migrated.returncode, migrated.stderr) == (0, "")
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)  # as the kubelet makes it
    command, *args = container("deployment")["args"]
    assert command == "serve"
    folder = volume / Path(environment("deployment")["STATEROOM_DATA_DIR"]).relative_to("/data")
    server = fresh_server(
        *args, data_dir=folder, env={**environment("deployment"), **here, "STATEROOM_DATA_DIR": str(folder)}
    )
    probes = [container("deployment")[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    with server.client(headers={"Host": "10.1.2.3:8765"}) as http:
        for probe in probes:
            assert_soon(lambda path=probe["path"]: http.get(path).status_code == 200)
        assert http.get("/v1/models").status_code == 401


# systemd


def test_the_unit_is_valid_and_confined(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd/stateroom.service").read_text()
    settings = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    assert settings["ProtectSystem"] == "strict"
    assert settings["User"] == settings["StateDirectory"] == "stateroom"
    assert int(settings["TimeoutStopSec"]) > Settings.model_fields["drain_seconds"].default + KILL_SECONDS
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    unit = tmp_path / "stateroom.service"
    unit.write_text(text.replace("/opt/stateroom/bin/stateroom-server", "/bin/true"))
    for check in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        checked = subprocess.run(["systemd-analyze", *check, str(unit)], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr + checked.stdout[-2000:]
        assert "stateroom.service:" not in checked.stderr


def test_the_unit_starts_a_command_that_exists(tmp_path: Path) -> None:
    (command,) = re.findall(
        r"^ExecStart=\S+/stateroom-server (.+)$", (DEPLOY / "systemd/stateroom.service").read_text(), re.MULTILINE
    )
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("porrt = 1")
    refused = run(*command.replace("/etc/stateroom/stateroom.toml", str(wrong)).split())
    assert (refused.returncode, refused.stderr.count("'porrt' is not a setting")) == (2, 1)


# Compose


def compose() -> dict:
    text = (DEPLOY / "compose/docker-compose.yml").read_text()
    filled, count = re.subn(r"\$\{(\w+):\?set it to a secret; docker-compose.yml shows how\}", r"\1", text)
    assert count > 0
    assert "${" not in filled
    return yaml.safe_load(filled)


def test_the_balancer_is_the_one_of_the_operations_page_and_knows_each_server() -> None:
    conf = (DEPLOY / "compose/nginx.conf").read_text()
    shown = next(block.text for block in blocks("docs/operations.md") if "upstream stateroom" in block.text)
    assert conf.partition("\nserver {")[2] == shown.partition("\nserver {")[2]
    servers = re.findall(r"^    server (\w+):8765 ", conf, re.MULTILINE)
    assert servers == [
        name
        for name, each in compose()["services"].items()
        if each.get("command") is None and each["image"] == "stateroom-server"
    ]
    assert len(servers) == 3


def test_servers_of_compose_share_what_is_there_and_trust_the_balancer_alone() -> None:
    whole = compose()
    services = whole["services"]
    addresses = {
        name: each["networks"]["default"]["ipv4_address"] for name, each in services.items() if "networks" in each
    }
    assert len(set(addresses.values())) == len(addresses) == 4
    for name in "abc":
        settings = services[name]["environment"]
        assert settings["STATEROOM_TRUSTED_PROXIES"] == addresses["nginx"]
        assert set(settings) & {f"STATEROOM_{each.upper()}" for each in Settings.model_fields} == {
            each for each in settings if each.startswith("STATEROOM_")
        }
        assert httpx.URL(settings["STATEROOM_STORE_ENDPOINT"]).host in services
        assert httpx.URL(settings["STATEROOM_DATABASE_URL"]).host in services
        assert settings["AWS_SECRET_ACCESS_KEY"] == services["store"]["environment"]["AWS_SECRET_ACCESS_KEY"]
        assert "volumes" not in services[name]
    bucket = httpx.URL(services["a"]["environment"]["STATEROOM_STORE_URL"]).host
    assert f"s3.bucket.create -name {bucket} " in services["bucket"]["command"][0]
    assert all("max-size" in each["logging"]["options"] for each in services.values())
    used = {volume.split(":")[0] for each in services.values() for volume in each.get("volumes", ())}
    assert used - {"./nginx.conf"} == set(whole["volumes"])
    waited_for = {name for each in services.values() for name in each.get("depends_on", ())}
    assert waited_for <= set(services)


# Prometheus and Grafana


def alerts() -> dict[str, str]:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels() -> dict[str, list[str]]:
    board = json.loads((DEPLOY / "grafana/stateroom.json").read_text())
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in board["panels"]}


def asked() -> dict[str, list[str]]:
    """All expressions, by the title of their alert or panel, with Grafana's variables filled in."""
    found = {title: [each.replace("$__rate_interval", "5m") for each in exprs] for title, exprs in panels().items()}
    return found | {title: [expr] for title, expr in alerts().items()}


def test_every_metric_and_label_that_alerts_and_panels_name_is_exported(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    with server.client() as http:
        http.post("/v1/models/vision/a/checkpoints", content=general(size=8)).raise_for_status()
        http.put("/v1/namespaces/vision", json={"quota_checkpoints": 9}).raise_for_status()
        text = http.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    exported = {name + part for name, kind in kinds.items() for part in parts.get(kind, ("",))}
    labels: dict[str, set[str]] = {}
    for name, inside in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        labels.setdefault(name, {"job", "instance"}).update(re.findall(r'(\w+)="', inside))
    for title, exprs in asked().items():
        for expr in exprs:
            promql_parser.parse(expr)
            without_texts = re.sub(r'"[^"]*"', '""', expr)
            names = set(re.findall(r"\b(?:stateroom|process)_\w+", without_texts))
            assert names <= exported, title
            if all(name in labels for name in names):
                used = set(re.findall(r'(\w+)(?:=~|!~|!=|=)""', without_texts))
                used |= {each for inside in re.findall(r"by \(([^)]*)\)", expr) for each in re.split(r",\s*", inside)}
                assert used <= {"job"}.union(*(labels[name] for name in names)), title


def test_every_alert_says_something_and_how_bad_it_is() -> None:
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert rule["annotations"]["summary"]


def test_panels_lie_side_by_side_and_ask_the_data_source_that_is_chosen() -> None:
    board: dict[str, Any] = json.loads((DEPLOY / "grafana/stateroom.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert {each["datasource"]["uid"] for each in (panel, *panel["targets"])} == {"${datasource}"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
