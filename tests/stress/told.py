"""Events of a server that is killed again and again, and their deliveries to a webhook."""

import json
import random
import threading
from dataclasses import dataclass, field

import httpx

from tests.support.receiver import Receiver
from tests.support.waiting import assert_soon

ALIASED = "/v1/models/vision/aliased"
ALIAS = f"{ALIASED}/aliases/prod"
VERSIONS = (1, 2, 3)


class Wrong(Exception):
    """Something that must not be."""


@dataclass(slots=True)
class Told:
    """The state of things as the events tell it, and a model of its own whose alias moves under a webhook."""

    receiver: Receiver
    live: set[int] = field(default_factory=set)
    moved_to: int = 1
    moving_to: int | None = None
    moves: list[int] = field(default_factory=list)
    last: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, http: httpx.Client, file: bytes) -> None:
        for _ in VERSIONS:
            http.post(f"{ALIASED}/checkpoints", content=file).raise_for_status()
        http.put(ALIAS, json={"ref": 1}).raise_for_status()
        hook = {"url": self.receiver.url, "kinds": ["alias-moved"]}
        http.post(f"{ALIASED}/webhooks", json=hook).raise_for_status()

    def move(self, http: httpx.Client, rng: random.Random) -> bool:
        """Move the alias, one thread at a time. Return False if another thread does so."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            self.moving_to = rng.choice([version for version in VERSIONS if version != self.moved_to])
            answer = http.put(ALIAS, json={"ref": self.moving_to})
            if not answer.is_success:
                raise Wrong(f"a move of an alias was answered with {answer.status_code}: {answer.text}")
            self.moved_to, self.moving_to = self.moving_to, None
        finally:
            self.lock.release()
        return True

    def verify(self, http: httpx.Client, model: str, versions: set[int]) -> None:
        """The events since the last look have no gaps, and lead to the state that is there: ``versions`` of ``model``,
        and the alias where it was moved to, or where it was being moved to.
        """
        while events := http.get("/v1/events", params={"after": self.last, "limit": 1000}).json()["items"]:
            ids = [event["id"] for event in events]
            if ids != list(range(self.last + 1, self.last + 1 + len(ids))):
                raise Wrong(f"after event {self.last} come events {ids}")
            self.last = ids[-1]
            for event in events:
                self._hear(event, model)
        if self.live != versions:
            raise Wrong(f"events tell of {self.live - versions}, and not of {versions - self.live}")
        there = http.get(ALIAS).json()["version"]
        if there != self.moves[-1] or there not in {self.moved_to, self.moving_to}:
            raise Wrong(f"the alias is at {there}, events tell of {self.moves[-1]}, clients of {self.moved_to}")
        self.moved_to, self.moving_to = there, None

    def _hear(self, event: dict, model: str) -> None:
        if event["kind"] == "alias-moved":
            self.moves.append(event["version"])
        elif event["model"] != model:
            return
        elif event["kind"] in {"checkpoint-created", "checkpoint-restored"}:
            if event["version"] in self.live:
                raise Wrong(f"{event} is told of twice")
            self.live.add(event["version"])
        elif event["kind"] == "checkpoint-trashed":
            self.live.remove(event["version"])

    def end(self, http: httpx.Client) -> int:
        """The webhook gets every move since it was made, in their order. Return the number of deliveries."""
        expected = self.moves[1:]
        assert_soon(lambda: len(self._delivered()) == len(expected))
        if self._delivered() != expected:
            raise Wrong("the webhook was told of other moves than there were")
        http.delete(ALIAS).raise_for_status()
        for version in VERSIONS:
            http.delete(f"{ALIASED}/checkpoints/{version}").raise_for_status()
        return len(self.receiver.seen)

    def _delivered(self) -> list[int]:
        """The versions in the deliveries; those that came twice, because a kill hid the answer, once."""
        bodies = {each["headers"]["webhook-id"]: json.loads(each["body"]) for each in self.receiver.seen}
        return [body["data"]["version"] for body in bodies.values()]
