"""A TLS front for a server: a certificate of its own for 127.0.0.1, and a relay that ends TLS."""

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.support.waiting import LONG_ENOUGH


@dataclass(frozen=True, slots=True)
class TlsFront:
    """``certificate`` is the file that SSL_CERT_FILE has to name for a client to trust ``url``."""

    url: str
    certificate: Path


@contextmanager
def tls_front(port: int, folder: Path) -> Iterator[TlsFront]:
    """Relay from a TLS port to the plain ``port`` of this host until the block ends."""
    certificate, key = _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    relay = partial(_relay_both_ways, port)
    starting = asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    started = asyncio.run_coroutine_threadsafe(starting, loop).result(LONG_ENOUGH)
    try:
        yield TlsFront(f"https://127.0.0.1:{started.sockets[0].getsockname()[1]}", certificate)
    finally:
        asyncio.run_coroutine_threadsafe(_end(started), loop).result(LONG_ENOUGH)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(started: asyncio.Server) -> None:
    started.close()
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _certificate(folder: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *made, *files], check=True, capture_output=True)
    return certificate, key


async def _relay_both_ways(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.gather(_relay(reader, to_server), _relay(from_server, writer))
    finally:
        to_server.close()
        writer.close()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.close()
