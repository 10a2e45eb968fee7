"""Requests and answers over HTTP: sessions, retries, ranges."""
