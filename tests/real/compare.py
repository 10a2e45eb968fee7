"""One real checkpoint: uploaded, fetched in every way, and compared with what stock torch reads."""

import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import torch
from safetensors.torch import load as load_safetensors

from tests.functional.torch_files import loaded, same

HARMLESS = ("torch.", "numpy.", "numpy", "collections", "argparse", "_codecs", "builtins.", "pathlib", "datetime")
"""What a pickle may name so that stock torch is asked to run it here."""


REFUSED = {"not-a-checkpoint", "no-tensors"}
"""Codes of refusals that are right, where torch sees no tensor in the file either without running strangers' code."""


@dataclass
class Findings:
    """What became of one file. ``differences`` should be empty."""

    format: str = ""
    refused: str = ""
    tensors: int = 0
    checked: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def expect(self, what: str, is_so: bool) -> None:
        (self.checked if is_so else self.differences).append(what)


def compare(http: httpx.Client, model: str, path: Path) -> Findings:
    """Upload ``path`` as the next version of ``model``, and compare."""
    found, data = Findings(), path.read_bytes()
    answer = http.post(f"/v1/models/{model}/checkpoints", content=data)
    if answer.status_code != 201:
        problem = answer.json()
        if problem["code"] in REFUSED and not _has_tensors(data):
            found.refused = problem["detail"]
        else:
            found.differences.append(f"upload: {answer.text}")
        return found
    checkpoint = answer.json()
    address = f"/v1/models/{model}/checkpoints/{checkpoint['version']}"
    found.format = checkpoint["format"]
    listed = [each["version"] for each in http.get(f"/v1/models/{model}/checkpoints").json()["items"]]
    found.expect("listed", checkpoint["version"] in listed)
    found.expect("original", http.get(f"{address}/original").content == data)
    ours = {each["name"]: http.get(f"{address}/state_dict", params={"component": each["name"]})
            for each in checkpoint["components"]}  # fmt: skip
    expected = _whole(found, http, address, checkpoint["unsafe_globals"], data)
    for component in checkpoint["components"]:
        name, label = component["name"], component["name"] or "state_dict"
        if ours[name].status_code != 200:
            found.differences.append(f"{label}: {ours[name].text}")
            continue
        tree = loaded(ours[name].content, map_location="cpu")
        tensors = dict(_tensors(tree))
        found.tensors += len(tensors)
        if expected is not None:
            part = expected.get(name) if found.format == "torchscript" else _part(expected, name)
            found.expect(f"{label} as pt", _equal(tensors, dict(_tensors(part))))
        answer = http.get(f"{address}/state_dict", params={"component": name, "format": "safetensors"})
        if answer.status_code == 200:
            left_out = tuple(map(unquote, answer.headers.get("Stateroom-Left-Out", "").split(", ")))
            flat = {key: tensor for key, tensor in tensors.items() if not _is_under(left_out, key)}
            found.expect(f"{label} as safetensors", _equal(load_safetensors(answer.content), flat))
        else:
            found.differences.append(f"{label} as safetensors: {answer.text}")
    return found


def _whole(found: Findings, http: httpx.Client, address: str, unsafe: list[str], data: bytes) -> Any:
    """What stock torch reads of the original, once ``/file`` is found to be the same; None where it is not asked."""
    if found.format == "safetensors":
        return load_safetensors(data)
    if found.format == "torchscript":
        module = torch.jit.load(io.BytesIO(data), map_location="cpu")
        return {"": dict(module.state_dict())}
    strangers = [name for name in unsafe if not name.startswith(HARMLESS)]
    if strangers:
        found.skipped.append(f"/file, which names {', '.join(strangers)}")
        return None
    query = {"weights_only": "false"} if unsafe else {}
    expected = loaded(data, weights_only=not unsafe, map_location="cpu")
    answer = http.get(f"{address}/file", params={"device": "cpu", **query})
    if answer.status_code != 200:
        found.differences.append(f"file: {answer.text}")
    else:
        found.expect("file", same(loaded(answer.content, weights_only=not unsafe), expected))
    return expected


def _has_tensors(data: bytes) -> bool:
    """Whether stock torch loads the file without running code of strangers, and finds a tensor in it."""
    try:
        tree = loaded(data, weights_only=True, map_location="cpu")
    except (RuntimeError, ValueError, OSError, pickle.UnpicklingError):
        return False
    return any(_tensors(tree))


def _part(tree: Any, name: str) -> Any:
    """What lies at a dotted path; keys may have dots themselves. Of a module, its state_dict."""
    if not name:
        return tree.state_dict() if isinstance(tree, torch.nn.Module) else tree
    for key, value in _items(tree):
        if name == str(key):
            return _part(value, "")
        if name.startswith(f"{key}."):
            return _part(value, name[len(str(key)) + 1 :])
    raise KeyError(quote(name))


def _is_under(names: tuple[str, ...], key: str) -> bool:
    """Whether a key is below one of some names: a dict in a state_dict, which a safetensors file has no place for."""
    return any(name and key.startswith(f"{name}.") for name in names)


def _items(tree: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(tree, Mapping):
        return tree.items()
    return enumerate(tree) if isinstance(tree, list | tuple) else ()


def _tensors(tree: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield path, tree
    else:
        for key, value in _items(tree):
            yield from _tensors(value, f"{path}.{key}" if path else str(key))


def _equal(some: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    def bits(tensor: torch.Tensor) -> bytes:
        return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

    return some.keys() == others.keys() and all(
        (tensor.dtype, tensor.shape) == (others[key].dtype, others[key].shape) and bits(tensor) == bits(others[key])
        for key, tensor in some.items()
    )
