"""One checkpoint file, fetched from a Stateroom server in every way, each compared with stock torch."""

import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file
from torch.serialization import LoadEndianness
from torch.utils._python_dispatch import _disable_current_modes

from stateroom import Client, StateroomError
from tests.peers.judging import Finding, Read, attempt, judge, same, where

WAYS = ("original", "file", "device=cpu", "state_dict", "safetensors", "client", "save")

Load = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of torch.load: the bytes of its file, the file's path if it had one, the other arguments, the read."""

    data: bytes
    path: str | os.PathLike[str] | None
    arguments: Mapping[str, Any]
    stock: Read


class Served:
    """Reads through one server, into versions of one model. ``load`` is torch's own ``torch.load``."""

    def __init__(self, url: str, model: str, ways: tuple[str, ...], load: Load, folder: Path) -> None:
        self._http = httpx.Client(base_url=url, timeout=120, trust_env=False, verify=False)
        self._model = Client(url, progress=False).model(model)
        self._base = f"/v1/models/{model}/checkpoints"
        self._ways = ways
        self._load = load
        self._folder = folder

    def findings(self, asked: Asked) -> tuple[Read, list[Finding]]:
        """Compare in every way. What ``file`` gives is the read, unless it is refused or another."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if torch.serialization.get_default_load_endianness() is LoadEndianness.BIG:
                return asked.stock, [
                    Finding("upload", "unjudged", "a setting of torch's says its byte order, not the file")
                ]
            answer = self._http.post(self._base, content=asked.data)
            if answer.status_code != 201:
                return asked.stock, [refused("upload", answer)]
            return self._every_way(asked, answer.json())

    def safetensors(self, data: bytes) -> tuple[bytes, list[Finding]]:
        """Compare a safetensors file in every way. What the server gives as safetensors is read, unless it is refused
        or another.
        """
        stock = attempt(lambda: self._safetensors_file(data))
        answer = self._http.post(self._base, content=data)
        if answer.status_code != 201:
            return data, [Finding("upload", "equal") if stock.error is not None else refused("upload", answer)]
        version = answer.json()["version"]
        address = f"{self._base}/{version}"
        if stock.error is not None:
            return data, [Finding("upload", "different", f"stock safetensors {stock}; the upload is stored")]
        given, found = data, []
        if "original" in self._ways:
            body = self._http.get(f"{address}/original").content
            found.append(Finding("original", "equal" if body == data else "different", "other bytes"))
        if "safetensors" in self._ways:
            answer = self._http.get(f"{address}/state_dict", params={"component": "", "format": "safetensors"})
            finding = flat("safetensors", answer, stock, self._safetensors_file)
            found.append(finding)
            if finding.outcome == "equal":
                given = answer.content
        if "state_dict" in self._ways:
            answer = self._http.get(f"{address}/state_dict", params={"component": ""})
            found.append(flat("state_dict", answer, stock, lambda body: self._load(io.BytesIO(body))))
        if "client" in self._ways:
            read = attempt(lambda: by_name(self._model.load(version)))
            found.append(judge("client", stock, read, lambda: stock.value))
        if "save" in self._ways:
            found.append(self._save(stock.value))
        return given, found

    def _safetensors_file(self, data: bytes) -> dict[str, Any]:
        """Read as a file: what safetensors reads from memory lacks some dtypes."""
        file = Path(tempfile.mkdtemp(dir=self._folder)) / "file.safetensors"
        file.write_bytes(data)
        return by_name(load_file(file))

    def _every_way(self, asked: Asked, checkpoint: Mapping[str, Any]) -> tuple[Read, list[Finding]]:
        address, given, found = f"{self._base}/{checkpoint['version']}", asked.stock, []
        unsafe = {"weights_only": "false"} if checkpoint["unsafe_globals"] else {}
        if "original" in self._ways:
            body = self._http.get(f"{address}/original").content
            found.append(Finding("original", "equal" if body == asked.data else "different", "other bytes"))
        if "file" in self._ways:
            answer = self._http.get(f"{address}/file", params=unsafe)
            finding, read = self._file("file", answer, asked, {})
            found.append(finding)
            if finding.outcome == "equal" and asked.stock.error is None:
                given = read
        if "device=cpu" in self._ways:
            answer = self._http.get(f"{address}/file", params={"device": "cpu", **unsafe})
            found.append(self._file("device=cpu", answer, asked, {"map_location": "cpu"})[0])
        if {"state_dict", "safetensors"} & set(self._ways):
            found += self._components(address, checkpoint, asked)
        if "client" in self._ways:
            found.append(self._client(checkpoint["version"], asked))
        if "save" in self._ways and asked.stock.error is None:
            found.append(self._save(asked.stock.value))
        return given, found

    def _file(self, way: str, answer: httpx.Response, asked: Asked, changed: Mapping[str, Any]) -> tuple[Finding, Read]:
        arguments = {**asked.arguments, **changed}
        if answer.status_code != 200:
            return refused(way, answer), asked.stock
        if arguments.get("encoding") == "bytes":
            return Finding(way, "unjudged", "text that Python 2 wrote is text in the file that is served"), asked.stock
        read = attempt(lambda: self._load(self._as_file(answer.content, asked.path), **arguments))

        def stock() -> Any:
            return self._load(self._as_file(asked.data, asked.path), **arguments)

        return judge(way, attempt(stock) if changed else asked.stock, read, stock), read

    def _as_file(self, data: bytes, path: str | os.PathLike[str] | None) -> Any:
        """A path where a path was given (mmap needs one), else a file in memory."""
        if path is None:
            return io.BytesIO(data)
        file = Path(tempfile.mkdtemp(dir=self._folder)) / (Path(path).name or "file")
        file.write_bytes(data)
        return str(file) if isinstance(path, str) else file

    def _client(self, version: int, asked: Asked) -> Finding:
        others = {name for name, value in asked.arguments.items() if value is not None} - {
            "map_location", "weights_only", "mmap",
        }  # fmt: skip
        if others:
            return Finding("client", "unjudged", f"client.load has no {', '.join(sorted(others))}")
        location, safe = asked.arguments.get("map_location"), asked.arguments.get("weights_only")
        read = attempt(lambda: self._model.load(version, location, weights_only=safe is not False))
        if isinstance(read.error, StateroomError):
            outcome = "equal" if asked.stock.error is not None else "refused"
            return Finding("client", outcome, f"{type(read.error).__name__} {read.error.code or ''}".strip())
        if asked.stock.error is not None and read.error is not None:
            return Finding("client", "equal")
        return judge("client", asked.stock, read, lambda: self._load(io.BytesIO(asked.data), **asked.arguments))

    def _save(self, value: Any) -> Finding:
        """``client.save``, then ``client.load``, against torch.save and torch.load."""
        with _disable_current_modes():
            file = io.BytesIO()
            written = attempt(lambda: torch.save(value, file))
            saved = attempt(lambda: self._model.save(value))
            if written.error is not None or isinstance(saved.error, StateroomError):
                outcome = "equal" if written.error is not None and saved.error is not None else "refused"
                why = f"{type(saved.error).__name__} {getattr(saved.error, 'rule', None) or ''}".strip()
                return Finding("save", outcome if saved.error is not None else "different", why)
            if saved.error is not None:
                return Finding("save", "different", str(saved))

            def stock() -> Any:
                return self._load(io.BytesIO(file.getvalue()), weights_only=False)

            read = attempt(lambda: self._model.load(saved.value, weights_only=False))
            return judge("save", attempt(stock), read, stock)

    def _components(self, address: str, checkpoint: Mapping[str, Any], asked: Asked) -> Iterator[Finding]:
        with _disable_current_modes():
            whole = attempt(lambda: self._load(io.BytesIO(asked.data), map_location="cpu", weights_only=False))
            if whole.error is not None:
                yield Finding("state_dict", "unjudged", "stock torch cannot load the whole on a CPU")
                return
            for component in checkpoint["components"]:
                name = component["name"]
                answer = self._http.get(f"{address}/state_dict", params={"component": name, "device": "cpu"})
                if answer.status_code != 200:
                    yield refused("state_dict", answer)
                    continue
                read = attempt(lambda body=answer.content: self._load(io.BytesIO(body), weights_only=True))
                if read.error is not None:
                    yield Finding("state_dict", "different", f"{name}: torch.load {read}")
                    continue
                yield state_dict(name, whole.value, read.value, left_out(answer))
                if "safetensors" in self._ways:
                    query = {"component": name, "format": "safetensors"}
                    yield safetensors(name, self._http.get(f"{address}/state_dict", params=query), read.value)


def refused(way: str, answer: httpx.Response) -> Finding:
    """A problem with a reason; anything of the server's own is no refusal."""
    if answer.status_code >= 500:
        return Finding(way, "different", f"{answer.status_code}: {answer.text[:200]}")
    problem = answer.json()
    return Finding(way, "refused", " ".join(filter(None, [problem["code"], problem.get("rule")])))


def flat(way: str, answer: httpx.Response, stock: Read, load: Load) -> Finding:
    if answer.status_code != 200:
        return refused(way, answer)
    return judge(way, stock, attempt(lambda: by_name(load(answer.content))), lambda: stock.value)


def by_name(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """In the order of names: safetensors gives another order each time."""
    return dict(sorted(tensors.items()))


def left_out(answer: httpx.Response) -> list[str]:
    return [unquote(path) for path in answer.headers.get("Stateroom-Left-Out", "").split(", ") if path]


def state_dict(name: str, whole: Any, served: Mapping[str, Any], gone: list[str]) -> Finding:
    """A component against what lies at its path, but for what is named as left out."""
    expected = [plain(each, gone) for each in candidates(whole, name)]
    if not expected:
        return Finding("state_dict", "unjudged", "nothing to compare with: the component lies in an object")
    given = plain(served, gone)
    if any(same(each, given) for each in expected):
        return Finding("state_dict", "equal")
    if not same(expected[0], expected[0]):
        return Finding("state_dict", "unjudged", "its values compare equal to nothing, themselves neither")
    return Finding("state_dict", "different", where(expected[0], given, name))


def safetensors(name: str, answer: httpx.Response, expected: Mapping[str, Any]) -> Finding:
    if answer.status_code != 200:
        return refused("safetensors", answer)
    served, gone = load_safetensors(answer.content), left_out(answer)
    flat = {key: whole.detach().resolve_conj().resolve_neg().contiguous() for key, whole in tensors(expected)}
    flat = {key: value for key, value in flat.items() if key not in gone}
    for key in flat.keys() ^ served.keys():
        return Finding("safetensors", "different", f"{name}.{key} is in one alone")
    for key, value in served.items():
        if not same(value, flat[key].clone(memory_format=torch.contiguous_format)):
            return Finding("safetensors", "different", where(flat[key], value, f"{name}.{key}"))
    return Finding("safetensors", "equal")


def candidates(value: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """Every mapping, and every module's state_dict, that a dotted path may mean: keys may have dots themselves."""
    if not name:
        if isinstance(value, torch.nn.Module):
            yield value.state_dict()
        elif isinstance(value, Mapping):
            yield value
        return
    items = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        if name == str(key):
            yield from candidates(item, "")
        elif name.startswith(f"{key}."):
            yield from candidates(item, name[len(str(key)) + 1 :])


def plain(tree: Any, gone: list[str], path: str = "") -> Any:
    """Containers as dict, list and tuple, without what is left out; tensors of classes outside of torch as tensors."""
    if isinstance(tree, torch.Tensor):
        return tree if type(tree).__module__.startswith("torch") else tree.as_subclass(torch.Tensor)
    if isinstance(tree, Mapping):
        below = {key: f"{path}.{key}" if path else str(key) for key in tree}
        return {key: plain(value, gone, below[key]) for key, value in tree.items() if not touched(below[key], gone)}
    return tree


def touched(path: str, gone: list[str]) -> bool:
    return any(f"{each}.".startswith(f"{path}.") for each in gone)


def tensors(tree: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping | list | tuple):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from tensors(value, f"{path}.{key}" if path else str(key))
