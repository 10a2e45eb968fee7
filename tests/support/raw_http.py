"""Hand-written HTTP, for requests that no client library would send."""

import socket
from contextlib import suppress
from http.client import HTTPResponse

from tests.support.server import Server


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def raw(server: Server, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; return the status and the body of the answer."""
    with connected(server) as connection:
        with suppress(OSError):  # the server may answer, and close, before it has read everything
            connection.sendall(request)
        return answer_on(connection)


def hang_up(server: Server, request: bytes, *, half: bool = False) -> bytes:
    """Send bytes and disconnect; with ``half``, first wait for everything that the server still sends."""
    with connected(server) as connection:
        connection.sendall(request)
        if not half:
            return b""
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def post(path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post_whole(path: str, body: bytes) -> bytes:
    return post(path, f"Content-Length: {len(body)}", body=body)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def answer_on(connection: socket.socket) -> tuple[int, bytes]:
    """Return the status and the body of the next answer."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


def rest_of(connection: socket.socket) -> bytes:
    """Return all bytes until the server ends the connection, in whichever way."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return bytes(received)
