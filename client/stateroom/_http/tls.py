"""TLS contexts. One takes 50 ms to make, because it loads the certificates of all authorities."""

from __future__ import annotations

import functools
import os
import ssl

import httpx


def tls_context() -> ssl.SSLContext:
    """Return the context that verifies servers, with the authorities of SSL_CERT_FILE or SSL_CERT_DIR if set."""
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=4)
def _context(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context()  # which reads the two variables itself
