"""Three replicas on PostgreSQL and an object store, behind a balancer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.nginx import balanced
from tests.support.postgres import Postgres
from tests.support.s3 import S3
from tests.support.server import Server, start_server

COUNT = 3


@dataclass(slots=True)
class Replicas(Server):
    """The balancer, as one server: its log is that of all replicas."""

    replicas: tuple[Server, ...] = ()

    @property
    def log(self) -> str:
        return "".join(replica.log_file.read_text(errors="replace") for replica in self.replicas)

    @property
    def lines(self) -> list[dict]:
        """Return the records of all logs in the order of their times: a later look finds what is new at the end."""
        return sorted((line for replica in self.replicas for line in replica.lines), key=lambda line: line["time"])


@contextmanager
def separate_replicas(folder: Path, postgres: Postgres, s3: S3) -> Iterator[list[Server]]:
    """Run the replicas until the block ends. Each has an empty data dir of its own."""
    shared = ("--store-url", s3.new_url(), "--database-url", postgres.database())
    env = {"STATEROOM_DURABLE": "off", **s3.environment}
    with ExitStack() as stack:
        replicas = []
        for number in range(COUNT):
            replica = start_server(folder / f"replica{number}" / "data", *shared, env=env)
            stack.callback(replica.kill)
            replicas.append(replica)
        yield replicas


@contextmanager
def running_replicas(folder: Path, postgres: Postgres, s3: S3) -> Iterator[Replicas]:
    """Run the replicas and their balancer until the block ends."""
    with separate_replicas(folder, postgres, s3) as replicas, balanced(folder / "nginx", replicas, "") as url:
        first = replicas[0]
        yield Replicas(first.process, url, first.data_dir, first.log_file, first.args, first.env, (), tuple(replicas))
