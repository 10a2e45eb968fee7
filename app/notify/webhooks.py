"""The delivery of events to webhooks: by one process at a time, at least once, in the order of events.

A lease says which process delivers. It only saves work: two at once would deliver twice. Receivers have to expect that
anyway, because the answer to a delivery may be lost.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from ..catalog import Catalog, deliveries, leases
from ..errors import InvalidRequest, StateroomError
from ..values.webhook import Message, sign
from .outgoing import Outgoing, Unsent

LEASE_SECONDS = 15.0
RENEWED_AFTER = 5.0

INTERVAL = 1.0
"""Seconds between two looks for due deliveries."""

IDLE_INTERVAL = 2.0
"""Seconds between two looks of a process that has nothing to deliver: there is no webhook, or another one delivers."""

AT_ONCE = 16
"""Most webhooks that are delivered to at once, each one event at a time."""

PATIENCE = 20.0
"""Longest wait, in seconds, for running deliveries to end."""

_log = logging.getLogger("stateroom.webhooks")


class WebhookSender:
    """A thread that delivers what is due while this process has the lease. Needs ``close``.

    ``private`` allows addresses that are not public. ``on_tried`` is called with the outcome of each attempt:
    ``delivered``, ``retried`` or ``failed``.
    """

    def __init__(self, catalog: Catalog, holder: str, *, private: bool, on_tried: Callable[[str], None]) -> None:
        self._catalog = catalog
        self._holder = holder
        self._outgoing = Outgoing(private=private)
        self._on_tried = on_tried
        self._renewed = float("-inf")
        self._stopping = threading.Event()
        self._busy: set[str] = set()
        self._threads = ThreadPoolExecutor(AT_ONCE, "webhook")
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._outgoing.close()
        self._thread.join(PATIENCE)
        self._threads.shutdown(cancel_futures=True)

    def _run(self) -> None:
        wait = INTERVAL
        while not self._stopping.wait(wait):
            wait = IDLE_INTERVAL
            try:
                if self._is_mine():
                    wait = INTERVAL
                    self._deliver()
            except StateroomError as error:
                _log.warning("webhooks wait, because the catalog did not answer: %s", error)
            except Exception:  # noqa: BLE001 - nobody else can be told; the next look may succeed
                _log.exception("a look for deliveries failed")
        self._give_back()

    def _is_mine(self) -> bool:
        """Take or renew the lease if there is a webhook."""
        if time.monotonic() - self._renewed < RENEWED_AFTER:
            return True
        with self._catalog.read() as session:
            if not deliveries.are_any(session):
                return False
        with self._catalog.write_own_rows() as w:
            taken = leases.take(w, deliveries.LEASE, self._holder, LEASE_SECONDS)
        self._renewed = time.monotonic() if taken else float("-inf")
        return taken

    def _give_back(self) -> None:
        if self._renewed > 0:
            try:
                with self._catalog.write_own_rows() as w:
                    leases.give_back(w, deliveries.LEASE, self._holder)
            except StateroomError as error:
                _log.warning("the lease of the webhooks runs on for a moment: %s", error)

    def _deliver(self) -> None:
        with self._catalog.read() as session:
            due = deliveries.due(session, datetime.now(UTC), 2 * AT_ONCE)
        for id_ in due:
            if id_ not in self._busy and len(self._busy) < AT_ONCE:
                self._busy.add(id_)
                self._threads.submit(self._deliver_to, id_)

    def _deliver_to(self, id_: str) -> None:
        """Deliver to one webhook until nothing is due, or an attempt fails."""
        try:
            while not self._stopping.is_set():
                with self._catalog.read() as session:
                    message = deliveries.next_message(session, id_, datetime.now(UTC))
                if message is None or not self._try(message):
                    return
        except StateroomError as error:
            _log.warning("a delivery will be repeated, because the catalog did not answer: %s", error)
        except Exception:  # noqa: BLE001 - nobody else can be told; the delivery is repeated
            _log.exception("a delivery failed")
        finally:
            self._busy.discard(id_)

    def _try(self, message: Message) -> bool:
        status, error = None, None
        try:
            status = self._outgoing.post(message.webhook.url, message.body.encode(), _headers(message))
            error = None if 200 <= status < 300 else _refusal(status)
        except (Unsent, InvalidRequest) as unsent:
            error = str(unsent)
        with self._catalog.write(message.webhook.model.namespace) as w:
            if error is None and status is not None:
                deliveries.succeeded(w, message, status)
                outcome = "delivered"
            else:
                is_over = deliveries.failed(w, message, status, error or "")
                outcome = "failed" if is_over else "retried"
        self._on_tried(outcome)
        return error is None


def _headers(message: Message) -> dict[str, str]:
    now = int(time.time())
    return {
        "User-Agent": "Stateroom",
        "webhook-id": message.id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(message.webhook.secret, message.id, now, message.body),
    }


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return f"the answer was {status}: redirects are not followed; give the webhook the URL that it leads to"
    return f"the answer was {status}"
