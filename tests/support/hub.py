"""Requests as the clients of the Hugging Face Hub send them."""

import base64
import hashlib
import json
from collections.abc import Mapping

import httpx


def added(files: Mapping[str, bytes]) -> list[dict]:
    return [
        {"key": "file", "value": {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}}
        for path, data in files.items()
    ]


def sent_ahead(path: str, data: bytes) -> dict:
    oid = hashlib.sha256(data).hexdigest()
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, "size": len(data)}}


def commit(http: httpx.Client, model: str, *changes: dict, **header: str) -> httpx.Response:
    """Commit ``changes``, as the hub's clients do."""
    lines = [{"key": "header", "value": {"summary": "a commit", "description": "", **header}}, *changes]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    headers = {"Content-Type": "application/x-ndjson"}
    return http.post(f"/api/models/{model}/commit/main", content=body, headers=headers)


def committed(http: httpx.Client, model: str, *changes: dict, **header: str) -> str:
    answer = commit(http, model, *changes, **header)
    assert answer.status_code == 200, answer.text
    made: str = answer.json()["commitOid"]
    return made


def batch(http: httpx.Client, model: str, data: bytes) -> dict:
    """Ask where to send ``data``."""
    asked = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": [asked], "hash_algo": "sha256"}
    answer = http.post(f"/{model}.git/info/lfs/objects/batch", json=body)
    assert answer.status_code == 200, answer.text
    [found] = answer.json()["objects"]
    return dict(found)


def upload_url(http: httpx.Client, model: str, data: bytes) -> str:
    url: str = batch(http, model, data)["actions"]["upload"]["href"]
    return url


def files_of(http: httpx.Client, model: str, revision: str = "main") -> dict[str, bytes]:
    shown = http.get(f"/api/models/{model}/revision/{revision}").json()["siblings"]
    return {each["rfilename"]: http.get(f"/{model}/resolve/{revision}/{each['rfilename']}").content for each in shown}
