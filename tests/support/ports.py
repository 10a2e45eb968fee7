"""Ports of this machine for servers that have to be told their port, or start again on the same one."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """Hold ports until the block ends: no other process is given one of them meanwhile.

    A server that sets SO_REUSEADDR, as nearly all do, can listen on them. While none does, connections are refused.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname()[1] for each in held]


@contextmanager
def held_port() -> Iterator[int]:
    """Hold one port, as ``held_ports`` does."""
    with held_ports(1) as (port,):
        yield port
