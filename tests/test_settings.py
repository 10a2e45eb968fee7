import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import CLIENT_VARIABLES, Settings, unknown_variables
from tests.support.commands import run


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"STATEROOM_{name.upper()}", raising=False)


def test_the_environment_decides_and_an_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEROOM_PORT", "9000")
    monkeypatch.setenv("STATEROOM_DURABLE", "off")
    assert (Settings().port, Settings().durable) == (9000, False)
    assert Settings(port=9001).port == 9001


def test_an_empty_token_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEROOM_SERVER_TOKEN", "")
    assert Settings().server_token is None


def test_the_token_is_not_printed() -> None:
    assert "hunter2" not in repr(Settings(server_token="hunter2"))


def test_everything_lies_in_the_data_dir_unless_told_otherwise(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert settings.catalog_url == f"sqlite:///{tmp_path}/catalog.sqlite3"
    assert settings.store_folder == tmp_path
    assert settings.spool_folder == tmp_path / "spool"
    assert settings.reserve_file == tmp_path / "stateroom-reserve"
    assert Settings(database_url="sqlite:////srv/catalog.db").reserve_file == Path("/srv/stateroom-reserve")
    assert Settings(data_dir=tmp_path, database_url="postgresql://x/y").reserve_file == settings.reserve_file
    elsewhere = Settings(data_dir=tmp_path, store_url="file:///mnt/big%20disk")
    assert elsewhere.store_folder == Path("/mnt/big disk")


@pytest.mark.parametrize(
    "url", ["s3:bucket", "s3://", "https://bucket", "file:relative", "/just/a/path", "file://", "file://[x"]
)
def test_a_store_is_a_folder_or_a_bucket_by_its_url(url: str) -> None:
    with pytest.raises(ValidationError):
        Settings(store_url=url)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/some/prefix", "gs://bucket", "az://container/prefix"])
def test_a_bucket_is_no_folder(url: str) -> None:
    assert Settings(store_url=url).store_folder is None


def test_a_folder_that_reads_as_a_host_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="'data' is read as a host"):
        Settings(store_url="file://data/store")
    with pytest.raises(ValidationError, match="'data' is read as a host"):
        Settings(database_url="sqlite://data/catalog.db")
    assert Settings(store_url="file://localhost/store").store_folder == Path("/store")
    assert Settings(database_url="sqlite:///data/catalog.db").catalog_url == "sqlite:///data/catalog.db"


@pytest.mark.parametrize(
    ("host", "is_open"),
    [("127.0.0.1", False), ("127.1.2.3", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("::", True),
     ("10.0.0.1", True), ("example.org", True), ("", True)],
)  # fmt: skip
def test_only_loopback_is_closed_to_others(host: str, is_open: bool) -> None:
    assert Settings(host=host).open_to_others is is_open


def test_a_variable_that_is_no_setting_is_named_with_the_one_it_may_be_meant_to_be() -> None:
    names = ["STATEROOM_MAX_UPLOAD", "STATEROOM_PORT", "stateroom_port", "STATEROOM_URL", "PATH", "STATEROOM_ZZZ"]
    assert list(unknown_variables(names)) == [
        "STATEROOM_MAX_UPLOAD is set but is not a setting; did you mean STATEROOM_MAX_UPLOADS?",
        "STATEROOM_ZZZ is set but is not a setting",
    ]


def test_the_clients_variables_are_known_to_the_server() -> None:
    source = "".join(path.read_text() for path in Path("client/stateroom").glob("**/*.py"))
    assert set(re.findall(r"STATEROOM_([A-Z_]*[A-Z])", source)) == CLIENT_VARIABLES


def test_every_command_warns_of_a_variable_that_is_no_setting(tmp_path: Path) -> None:
    ran = run("migrate", "--data-dir", str(tmp_path / "data"), STATEROOM_DATADIR="elsewhere")
    assert ran.returncode == 0
    assert "STATEROOM_DATADIR is set but is not a setting; did you mean STATEROOM_DATA_DIR?" in ran.stderr


def test_a_file_gives_what_neither_an_option_nor_a_variable_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stateroom.toml"
    file.write_text(
        'port = 9000\nworkers = 3\nhost = "0.0.0.0"\ntrash = "14d"\nmax_upload_bytes = "2GB"\ninsecure = true\n'
        'allowed_hosts = ["Models.example", "b.example:80"]\ntrusted_proxies = ["10.0.0.7", "10.1.0.0/16"]\n'
    )
    monkeypatch.setenv("STATEROOM_WORKERS", "4")
    monkeypatch.setenv("STATEROOM_HOST", "127.0.0.2")
    found = Settings(config=file, host="127.0.0.3")
    assert (found.host, found.workers, found.port) == ("127.0.0.3", 4, 9000)
    assert (found.trash.days, found.max_upload_bytes, found.insecure) == (14, 2_000_000_000, True)
    assert found.allowed_hosts == {"models.example", "b.example:80"}
    assert {str(network) for network in found.trusted_proxies} == {"10.0.0.7/32", "10.1.0.0/16"}
    monkeypatch.setenv("STATEROOM_CONFIG", str(file))
    assert Settings() == found.model_copy(update={"host": "127.0.0.2"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max-upload-bytes = 1\nporrt = 80", "'max-upload-bytes' is not a setting; did you mean max_upload_bytes?"),
        ("max-upload-bytes = 1\nporrt = 80", "'porrt' is not a setting; did you mean port?"),
        ('config = "other.toml"', "'config' is not a setting"),
        ("[host]\nname = 1", "host is a table; settings stand at the top level: host = ..."),
        ("port = 99999", "port in the configuration file: Input should be less than or equal to 65535"),
        ("port = ", "is not valid TOML"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_in_the_file_is_one_short_complaint(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "stateroom.toml"
    if text is not None:
        file.write_text(text)
    refused = run("migrate", "--config", str(file), "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_file_with_a_secret_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "stateroom.toml"
    for text, mode, said in (
        ("port = 0", 0o644, ""),
        ("server_token = 'hunter2'", 0o640, ""),
        ("server_token = 'hunter2'", 0o644, "holds server_token, and every user of this machine can read it"),
    ):
        file.write_text(text)
        file.chmod(mode)
        done = run("migrate", "--config", str(file), "--data-dir", str(tmp_path / "data"))
        assert done.returncode == 0
        assert (said in done.stderr) if said else done.stderr == ""
        assert "hunter2" not in done.stderr


def test_every_command_takes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "stateroom.toml"
    file.write_text(f'data_dir = "{tmp_path / "data"}"')
    assert run("migrate", "--config", str(file)).returncode == 0
    (tmp_path / "data/packs").mkdir()
    for command in ("token add a --scope read", "token list", "token revoke a", "sweep", "fsck", "events"):
        done = run(*command.split(), "--config", str(file))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/catalog.sqlite3").exists()
