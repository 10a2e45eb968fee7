"""Webhooks, from a change to a receiver, which is a process of its own."""

import base64
import hashlib
import hmac
import json
from contextlib import closing

import pytest

from app.catalog import Catalog, aliases, deliveries, leases, webhooks
from app.notify.outgoing import Outgoing
from app.notify.webhooks import WebhookSender
from app.values.webhook import sign
from stateroom import Client, InvalidRequest, NotFound
from tests.api.conftest import general
from tests.catalog.make import MODEL, add
from tests.conftest import StartServer
from tests.support.commands import run_program
from tests.support.receiver import Receiver
from tests.support.server import server_environment
from tests.support.waiting import LONG_ENOUGH, assert_soon


def is_genuine(secret: str, request: dict) -> bool:
    """Verify a delivery by the words of Standard Webhooks."""
    headers, key = request["headers"], base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{request['body']}"
    expected = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{expected}"


def test_a_signature_is_the_one_that_the_libraries_of_standard_webhooks_make() -> None:
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", '{"test": 2432232314}'
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_receiver_that_dies_and_comes_back_gets_every_event_in_order_and_genuine(
    database: str, request: pytest.FixtureRequest, fresh_server: StartServer, receiver: Receiver
) -> None:
    where = ("--database-url", request.getfixturevalue("postgres").database()) if database == "postgresql" else ()
    server = fresh_server("--workers", "2", *where, env={"STATEROOM_WEBHOOK_PRIVATE": "on"})
    with server.client() as http, Client(server.base_url) as client:
        http.post("/v1/models/vision/net/checkpoints", content=general()).raise_for_status()
        model = client.model("vision/net")
        hook = model.add_webhook(f"{receiver.url}/hook", kinds=["webhook-made", "alias-moved", "alias-removed"])
        assert (hook.secret is not None, [one.secret for one in model.webhooks()]) == (True, [None])
        model.alias("prod", 1)
        assert_soon(lambda: [each.state for each in model.webhook_deliveries(hook.id)] == ["delivered"] * 2)
        assert len(receiver.seen) == 2
        receiver.kill()
        model.unalias("prod")
        model.alias("prod", 1)
        model.update(1, tags={"seen": "yes"})
        assert_soon(lambda: any(each.attempts for each in model.webhook_deliveries(hook.id) if each.state == "waiting"))
        waiting = [each for each in model.webhook_deliveries(hook.id) if each.state == "waiting"]
        assert [(each.kind, bool(each.error)) for each in waiting] == [("alias-moved", False), ("alias-removed", True)]
    server.restart()
    receiver.start()
    with Client(server.base_url) as client:
        model = client.model("vision/net")
        model.alias("staging", 1)
        assert_soon(lambda: all(each.state == "delivered" for each in model.webhook_deliveries(hook.id)))
        told = {item["headers"]["webhook-id"]: json.loads(item["body"]) for item in receiver.seen}
        assert all(is_genuine(hook.secret or "", item) for item in receiver.seen)
        assert [(each["type"], each["data"]["alias"]) for each in told.values()] == [
            ("webhook-made", None),
            ("alias-moved", "prod"),
            ("alias-removed", "prod"),
            ("alias-moved", "prod"),
            ("alias-moved", "staging"),
        ]
        events = {event.id: event for event in model.events()}
        assert all(events[each["data"]["id"]].kind == each["type"] for each in told.values())
        assert {each.status for each in model.webhook_deliveries(hook.id)} == {204}

        environment = server_environment({"STATEROOM_URL": server.base_url})

        def command(*words: str) -> str:
            done = run_program("stateroom._cli.main", ["webhooks", "vision/net", *words], environment)
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout

        moved, secret = command("--add", f"{receiver.url}/moved").split()
        assert secret.startswith("whsec_")
        assert [one["id"] for one in json.loads(command("--json"))] == [hook.id, moved]
        assert_soon(lambda: "redirects are not followed" in command("--deliveries", moved))
        command("--rm", moved)
        model.remove_webhook(hook.id)
        assert "/elsewhere" not in {item["path"] for item in receiver.seen}
        for mistake in (
            lambda: model.add_webhook(receiver.url, secret="whsec_short"),
            lambda: model.add_webhook("ftp://1.1.1.1/"),
            lambda: model.add_webhook(receiver.url, kinds=["party"]),
        ):
            with pytest.raises(InvalidRequest):
                mistake()
        with pytest.raises(NotFound, match="has no webhook"):
            model.remove_webhook(hook.id)
        assert model.webhooks() == []


def test_a_process_that_dies_between_sending_and_noting_it_leaves_the_delivery_to_another(
    catalog: Catalog, database_url: str, receiver: Receiver
) -> None:
    add(catalog)
    with catalog.write() as w:
        hook = webhooks.add(w, MODEL, receiver.url, ["alias-moved"], None, None)
        aliases.move(w, MODEL, "prod", 1, None, None)
        leases.take(w, deliveries.LEASE, "a process that died", 0.5)
    with catalog.read() as session:
        (due,) = deliveries.due(session, hook.created_at.replace(year=9999), 10)
        message = deliveries.next_message(session, due, hook.created_at.replace(year=9999))
    assert message is not None
    Outgoing(private=True, seconds=LONG_ENOUGH).post(hook.url, message.body.encode(), {"webhook-id": message.id})
    outcomes: list[str] = []
    with (
        closing(Catalog(database_url, durable=False)) as other,
        closing(WebhookSender(other, "another", private=True, on_tried=outcomes.append)),
    ):
        assert_soon(lambda: len(receiver.seen) >= 2)
        assert_soon(lambda: outcomes[-1:] == ["delivered"])
    assert {item["headers"]["webhook-id"] for item in receiver.seen} == {message.id}


def test_attempts_come_later_and_later_for_a_day_and_then_the_next_event_has_its_turn(catalog: Catalog) -> None:
    add(catalog)
    with catalog.write() as w:
        hook = webhooks.add(w, MODEL, "http://1.1.1.1/", [], None, None)
        aliases.move(w, MODEL, "prod", 1, None, None)
    far = hook.created_at.replace(year=9999)

    def head() -> deliveries.Message:
        with catalog.read() as session:
            message = deliveries.next_message(session, hook.id, far)
        assert message is not None
        return message

    pauses = []
    for _ in range(14):
        with catalog.write() as w:
            assert not deliveries.failed(w, head(), 500, "x" * 1_000)
        with catalog.read() as session:
            tried = head().delivery.tried_at
            due_at = session._connection.exec_driver_sql("SELECT next_at FROM webhooks").scalar_one()
            assert tried is not None
            pauses.append(round(due_at / 1e6 - tried.timestamp()))
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]
    oldest = head().delivery
    assert (oldest.kind, oldest.attempts, len(oldest.error or "")) == ("webhook-made", 14, 300)
    with catalog.write() as w:
        w._connection.exec_driver_sql("UPDATE webhook_deliveries SET created_at = created_at - 86400000000")
    with catalog.write() as w:
        assert deliveries.failed(w, head(), None, "gone")
    assert head().delivery.kind == "alias-moved"
    with catalog.write() as w:
        deliveries.succeeded(w, head(), 200)
    with catalog.read() as session:
        assert deliveries.next_message(session, hook.id, far) is None
        log = webhooks.list_deliveries(session, MODEL, hook.id, limit=1)
        rest = webhooks.list_deliveries(session, MODEL, hook.id, limit=1, cursor=log.next)
    assert [(each.kind, each.state) for each in (*log.items, *rest.items)] == [
        ("alias-moved", "delivered"),
        ("webhook-made", "failed"),
    ]
    with catalog.write() as w:
        for _ in range(webhooks.MAX_WEBHOOKS - 1):
            webhooks.add(w, MODEL, "http://1.1.1.1/", [], None, None)
        with pytest.raises(Exception, match="has 20 webhooks") as refused:
            webhooks.add(w, MODEL, "http://1.1.1.1/", [], None, None)
    assert refused.value.code == "too-many-webhooks"
