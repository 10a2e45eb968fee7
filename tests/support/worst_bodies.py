"""The worst requests that we know of, for every route: an HTTP counterpart of the hostile corpus."""

import base64
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import torch

MODEL = "/v1/models/worst/model"
UPLOADS = "/v1/uploads/worst/model"
LOOSE = "/v1/loose-files/worst/model"
BLOCK = 16 * 1024 * 1024
JSON = {"Content-Type": "application/json"}

Route = tuple[str, str]
Body = Callable[[], bytes]


@dataclass(frozen=True)
class Worst:
    """One request to ``route`` (method and template). ``path`` has the route's values filled in, and a query."""

    route: Route
    what: str
    path: str
    body: Body = bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """The contents of a filled server: version 1 is a torch file, version 2 safetensors, version 3 a folder; an
    announced upload; and the number of a loose file.
    """

    wide: int
    texts: int
    folder: int
    upload_id: str
    loose: int


def fill(http: httpx.Client, scale: int) -> Place:
    """Fill a server; ``scale`` is about the number of keys of each file."""
    upload_id = http.post(UPLOADS, content=announcement(scale), headers=JSON).raise_for_status().json()["id"]
    files = (wide_file(scale), file_of_texts(scale), folder(min(scale // 20, 9_999)))
    versions = [http.post(f"{MODEL}/checkpoints", content=file).raise_for_status().json()["version"] for file in files]
    # The first cast imports torch, once in a server's life, which has nothing to do with the bodies.
    http.get(f"{MODEL}/checkpoints/{versions[0]}/state_dict?dtype=fp16").raise_for_status()
    loose = http.put(LOOSE, params={"path": "a"}, json=recipe(bytes(20 * scale))).raise_for_status().json()["number"]
    return Place(*versions, upload_id, loose)


def recipe(data: bytes, **changes: object) -> dict[str, object]:
    """Return the body that writes a loose file without storages."""
    rest = [base64.b64encode(data[at : at + 30_720]).decode() for at in range(0, len(data), 30_720)]
    return {"size": len(data), "storages": [], "blocks": [], "crc32s": [], "rest": rest, "writer": "me", **changes}


def wide_file(scale: int) -> bytes:
    """Return a torch file with many keys on one storage, many components, and an optimizer with many ids."""
    tensor = torch.zeros(4)
    nets = {f"{number:05d}" + "\udcff" * 50: {"w": tensor} for number in range(min(scale // 20, 9_000))}
    tied = {f"{number:06d}." + "k" * 100: tensor for number in range(scale // 2)}
    optimizer = {"state": {0: {"m": tensor}}, "param_groups": [{"params": list(range(scale * 4)), "lr": 0.1}]}
    buffer = io.BytesIO()
    torch.save({"model_state_dict": tied, "optimizer": optimizer, **nets}, buffer)
    return buffer.getvalue()


def file_of_texts(scale: int) -> bytes:
    """Return a safetensors file with large metadata of its own."""
    texts = {f"{number}": "\\" * 1000 for number in range(min(scale // 4, 3_900))}
    header = json.dumps({"__metadata__": texts, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def folder(count: int) -> bytes:
    """Return a folder of a checkpoint and many empty files with long paths."""
    tensor = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, tensor)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.pt", tensor.getvalue())
        for number in range(count):
            archive.writestr("/".join(["p" * 100] * 9) + f"/{number}", b"")
    return buffer.getvalue()


def form_of_files(count: int) -> bytes:
    files = (
        f'--x\r\nContent-Disposition: form-data; name="file"; filename="{"d/" * 400}{number}"\r\n\r\n\r\n'
        for number in range(count)
    )
    return ("".join(files) + "--x--\r\n").encode()


def announcement(count: int) -> bytes:
    """Return an announcement of storages with gaps between them, and a frame of several blocks."""
    storages = [[start, start + 5000] for start in range(100, 100 + count * 10_000, 10_000)]
    size = count * 10_000 + 4 * BLOCK
    frame = size - 5000 * count
    random = Random(0)
    blocks = [f"{random.getrandbits(256):064x}" for _ in range(-(-frame // BLOCK) + count)]
    return json.dumps({"size": size, "storages": storages, "blocks": blocks}).encode()


def target(count: int, **more: object) -> bytes:
    """Return a target with keys of a thousand shapes, fewer than a target may have."""
    keys = {
        f"{number:06d}." + "k" * 20: {"shape": [number % 1000, 1000, 1], "dtype": "float32"} for number in range(count)
    }
    return json.dumps({"target": keys, **more}).encode()


def fitting_target(scale: int) -> bytes:
    """All keys of ``wide_file``'s model."""
    keys = {f"{number:06d}." + "k" * 100: {"shape": [4], "dtype": "float32"} for number in range(scale // 2)}
    return json.dumps({"target": keys}).encode()


def smaller_target(scale: int) -> bytes:
    """All keys of ``wide_file``'s model, each of fewer elements and of a smaller dtype."""
    keys = {
        f"{number:06d}." + "k" * 100: {"shape": [1 + number % 3], "dtype": "float16"} for number in range(scale // 2)
    }
    return json.dumps({"target": keys, "resize": "slice", "dtype": "target"}).encode()


def form(count: int, size: int) -> bytes:
    fields = (
        f'--x\r\nContent-Disposition: form-data; name="tag.{number}"\r\n\r\n{"v" * size}\r\n' for number in range(count)
    )
    return ("".join(fields) + '--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nPK\r\n--x--\r\n').encode()


def many(item: str, count: int) -> str:
    return ",".join([item] * count)


def worst_requests(place: Place, scale: int) -> Iterator[Worst]:
    """Yield the requests; those that delete come last."""
    one = f"{MODEL}/checkpoints/{place.wide}"
    texts = f"{MODEL}/checkpoints/{place.texts}"
    mistakes = 20 * scale
    patterns = "&".join(f"include=*{number}*{'k' * 20}" for number in range(1200))
    near = "include=" + "k." * 150
    for path in ("/healthz", "/readyz", "/metrics"):
        yield Worst(("GET", path), "a long head", path, headers={f"X-{number}": "v" * 600 for number in range(90)})
    models = ("GET", "/v1/models")
    yield Worst(models, "a long cursor", f"/v1/models?limit=1000&cursor={'A' * 30_000}")
    namespace = ("PUT", "/v1/namespaces/{namespace}")
    names = ",".join(f'"n{number}"' for number in range(5_000))
    yield Worst(
        ("POST", "/v1/tokens"),
        "many namespaces",
        "/v1/tokens",
        f'{{"name":"worst","scope":"read","namespaces":[{names}]}}'.encode,
        JSON,
    )
    yield Worst(("GET", "/v1/tokens"), "a long cursor", f"/v1/tokens?limit=1000&cursor={'A' * 30_000}")
    yield Worst(("DELETE", "/v1/tokens/{token}"), "a long name", f"/v1/tokens/{'a' * 30_000}")
    yield Worst(("GET", "/v1/namespaces"), "a long cursor", f"/v1/namespaces?limit=1000&cursor={'A' * 30_000}")
    yield Worst(("GET", "/v1/namespaces/{namespace}"), "a long name", f"/v1/namespaces/{'a' * 30_000}")
    yield Worst(namespace, "mistakes", "/v1/namespaces/worst", f'{{"quota_bytes":[{many("1", 400_000)}]}}'.encode, JSON)
    yield Worst(
        namespace, "a long number", "/v1/namespaces/worst", lambda: b'{"quota_bytes":' + b"9" * 60_000 + b"}", JSON
    )
    model = "/v1/models/{namespace}/{name}"
    yield Worst(("GET", model), "wide checkpoints", MODEL)
    yield Worst(("PATCH", model), "mistakes", MODEL, f'{{"best":[{many("1", 400_000)}]}}'.encode, JSON)
    yield Worst(("PATCH", model), "nested", MODEL, lambda: b'{"best":' + b"[" * 60_000, JSON)
    yield Worst(("PATCH", model), "blanks", MODEL, lambda: b" " * 1_000_000, JSON)

    aliases, alias = f"{model}/aliases", f"{model}/aliases/{{alias}}"
    long_note = json.dumps({"ref": "1", "note": "\1" * 150_000}).encode()
    yield Worst(("PUT", alias), "a long note", f"{MODEL}/aliases/a", lambda: long_note, JSON)
    yield Worst(("PUT", alias), "nested", f"{MODEL}/aliases/a", lambda: b'{"ref":' + b"[" * 60_000, JSON)
    yield Worst(("PUT", alias), "a right one", f"{MODEL}/aliases/prod", lambda: b'{"ref": 1}', JSON)
    yield Worst(
        ("PATCH", alias), "mistakes", f"{MODEL}/aliases/prod", f'{{"protected":[{many("1", 400_000)}]}}'.encode, JSON
    )
    for path in ("", "/history?limit=1000"):
        route = alias + path.partition("?")[0]
        yield Worst(("GET", route), "a long name", f"{MODEL}/aliases/{'a' * 30_000}{path}")
    yield Worst(("GET", aliases), "all", f"{MODEL}/aliases")
    yield Worst(("POST", f"{alias}/rollback"), "no previous", f"{MODEL}/aliases/prod/rollback", lambda: b" " * 900_000)
    yield Worst(("DELETE", alias), "a right one", f"{MODEL}/aliases/prod")

    hooks = f"{model}/webhooks"
    kinds = many('"alias-moved"', 400)
    yield Worst(("POST", hooks), "many kinds", f"{MODEL}/webhooks", f'{{"url":"","kinds":[{kinds}]}}'.encode, JSON)
    yield Worst(("POST", hooks), "a long url", f"{MODEL}/webhooks", f'{{"url":"http://{"a" * 60_000}"}}'.encode, JSON)
    yield Worst(("GET", hooks), "all", f"{MODEL}/webhooks")
    long_id = "a" * 30_000
    yield Worst(("DELETE", f"{hooks}/{{webhook}}"), "a long id", f"{MODEL}/webhooks/{long_id}")
    path = f"{hooks}/{{webhook}}/deliveries"
    yield Worst(("GET", path), "a long id", f"{MODEL}/webhooks/{long_id}/deliveries?limit=1000")
    many_kinds = "&".join(["kind=alias-moved"] * 2_000)
    for route, path in (
        (f"{model}/events", f"{MODEL}/events"),
        ("/v1/namespaces/{namespace}/events", "/v1/namespaces/worst/events"),
        ("/v1/events", "/v1/events"),
    ):
        yield Worst(("GET", route), "many kinds", f"{path}?limit=1000&{many_kinds}")
        yield Worst(("GET", route), "a long id", f"{path}?after={'9' * 30_000}")

    listing = f"{model}/checkpoints"
    filters = "&".join(f"metric.{number}.ge=1" for number in range(50))
    yield Worst(("GET", listing), "wide items", f"{MODEL}/checkpoints?limit=1000")
    yield Worst(("GET", listing), "filters", f"{MODEL}/checkpoints?limit=1000&order=metric.x&{filters}")
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    yield Worst(("POST", listing), "fields", f"{MODEL}/checkpoints", lambda: form(1000, 60_000), multipart)
    yield Worst(("POST", listing), "files", f"{MODEL}/checkpoints", lambda: form_of_files(12_000), multipart)
    yield Worst(("POST", listing), "a folder of many files", f"{MODEL}/checkpoints", lambda: folder(12_000))
    yield Worst(("POST", listing), "nothing", f"{MODEL}/checkpoints", lambda: bytes(32 << 20))
    yield Worst(("PUT", listing), "zips", f"{MODEL}/checkpoints", lambda: b"PK\5\6" * (2 << 20))

    yield Worst(("GET", listing), "the trash", f"{MODEL}/checkpoints?trash=true&limit=1000")
    preview = f"{model}/retention/preview"
    rules = f'{{"retention":{{"keep_best":[{many("1", 400_000)}]}}}}'
    yield Worst(("POST", preview), "mistakes", f"{MODEL}/retention/preview", rules.encode, JSON)
    yield Worst(
        ("POST", preview), "a right one", f"{MODEL}/retention/preview", lambda: b'{"retention":{"keep_last":1}}', JSON
    )
    yield Worst(("GET", f"{model}/history"), "wide items", f"{MODEL}/history?limit=1000")

    checkpoint = f"{listing}/{{ref}}"
    pin, long_reason = f"{checkpoint}/pin", json.dumps({"reason": "\1" * 150_000}).encode()
    yield Worst(("PUT", pin), "a long reason", f"{one}/pin", lambda: long_reason, JSON)
    yield Worst(("DELETE", pin), "a right one", f"{one}/pin")
    yield Worst(("POST", f"{checkpoint}/restore"), "a live one", f"{one}/restore", lambda: b" " * 900_000)
    yield Worst(("GET", checkpoint), "wide", one)
    yield Worst(("GET", checkpoint), "a long ref", f"{MODEL}/checkpoints/min:{'a' * 30_000}")
    metrics = json.dumps({"metrics": {f"{number:x}": "" for number in range(80_000)}}).encode()
    tags = json.dumps({"tags": {f"{number}": "\1" * 250 for number in range(600)}}).encode()
    yield Worst(("PATCH", checkpoint), "mistakes", one, lambda: metrics, JSON)
    yield Worst(("PATCH", checkpoint), "tags", one, lambda: tags, JSON)
    yield Worst(("PATCH", checkpoint), "too long", one, lambda: b" " * (32 << 20), JSON)
    yield Worst(("GET", f"{checkpoint}/lineage"), "none", f"{one}/lineage")
    merge, sources = f"{MODEL}/merge", json.dumps({"of": [str(place.wide), str(place.texts)]}).encode()
    yield Worst(("POST", "/v1/models/{namespace}/{name}/merge"), "wide ones", merge, lambda: sources, JSON)
    long_refs = json.dumps({"of": ["r" * 60_000] * 15}).encode()
    yield Worst(("POST", "/v1/models/{namespace}/{name}/merge"), "long refs", merge, lambda: long_refs, JSON)
    files = f"{MODEL}/checkpoints/{place.folder}/files"
    yield Worst(("GET", f"{checkpoint}/files"), "long paths", files)
    yield Worst(("GET", f"{checkpoint}/files"), "a long cursor", f"{files}?cursor={'1' * 30_000}")
    yield Worst(("GET", f"{checkpoint}/files/{{path}}"), "a path near many", f"{files}/{'p' * 100}/{'p' * 800}/1")
    yield Worst(("GET", f"{checkpoint}/files/{{path}}"), "a long path", f"{files}/{'p/' * 15_000}")
    yield Worst(("GET", f"{checkpoint}/tensors"), "tied keys", f"{one}/tensors?limit=10000")
    yield Worst(("GET", f"{checkpoint}/tensors"), "ids", f"{one}/tensors?component=optimizer&limit=1")
    yield Worst(("GET", f"{checkpoint}/tensors"), "metadata", f"{texts}/tensors")
    yield Worst(("GET", f"{checkpoint}/tensors"), "a name near none", f"{one}/tensors?component={'net.' * 5000}")

    last = f"{scale // 2 - 1:06d}." + "k" * 100
    for route, path in (("/tensors/{key}", ""), ("/tensors/{key}/index", "/index")):
        for what, query in (
            (last, "rows=0:1&dtype=fp16"),
            ("state.0.m", ""),
            ("k." * 5000, ""),
            (last, f"rows={'9' * 30_000}"),
        ):
            yield Worst(("GET", checkpoint + route), what[:12] + query[:4], f"{one}/tensors/{what}{path}?{query}")

    yield Worst(("GET", f"{checkpoint}/stats"), "tied keys", f"{one}/stats?limit=1000")
    yield Worst(
        ("GET", f"{checkpoint}/stats"), "patterns", f"{one}/stats?{'&'.join(f'include=*{i}*' for i in range(500))}"
    )
    for what, query in (("itself", "limit=10000"), ("numbers", "numeric=true&component=model")):
        yield Worst(("GET", f"{checkpoint}/diff/{{other}}"), what, f"{one}/diff/1?{query}")
    yield Worst(("GET", f"{checkpoint}/diff/{{other}}"), "another", f"{one}/diff/2?limit=10000")

    for route, path in (("/state_dict", ""), ("/state_dict/{filename}", "/x.pt"), ("/state_dict/index", "/index")):
        for what, query in (("all", ""), ("patterns", patterns), ("near nothing", near), ("other dtype", "dtype=fp16")):
            yield Worst(("GET", checkpoint + route), what, f"{one}/state_dict{path}?{query}")
    for name, query in (("file", "device=cpu&weights_only=false"), ("original", "")):
        for route, path in (
            (f"/{name}", ""),
            (f"/{name}/{{filename}}", "/" + "x" * 3000),
            (f"/{name}/index", "/index"),
        ):
            yield Worst(("GET", checkpoint + route), "wide", f"{one}/{name}{path}?{query}")
        yield Worst(("POST", f"{checkpoint}/links/{name}"), "wide", f"{one}/links/{name}?{query}")
    yield Worst(("POST", f"{checkpoint}/links/state_dict"), "patterns", f"{one}/links/state_dict?{patterns}")

    warm = ("POST", f"{checkpoint}/warmstart")
    yield Worst(warm, "a right target", f"{one}/warmstart", lambda: target(scale), JSON)
    yield Worst(warm, "a target that fits", f"{one}/warmstart", lambda: fitting_target(scale), JSON)
    yield Worst(warm, "a target to be cut and cast", f"{one}/warmstart", lambda: smaller_target(scale), JSON)
    yield Worst(warm, "a target of other shapes", f"{one}/warmstart", lambda: target(scale, include=["*9"]), JSON)
    for what, text in (
        ("mistakes in include", f'{{"target":{{}},"include":[{many("1", mistakes)}]}}'),
        ("mistakes in a shape", f'{{"target":{{"a":{{"shape":[{many("1", mistakes)}],"dtype":""}}}}}}'),
        ("mistakes in rename", f'{{"target":{{}},"rename":[{many("[]", mistakes)}]}}'),
        ("patterns", f'{{"target":{{}},"include":[{many(json.dumps("k" * 4000), scale // 20)}]}}'),
        ("one long text", f'{{"target":{{}},"component":"{"a" * mistakes}"}}'),
        ("not an object", f"[{many('{}', mistakes)}]"),
    ):
        yield Worst(warm, what, f"{one}/warmstart", lambda text=text: text.encode(), JSON)

    announced = "/v1/uploads/{namespace}/{name}"
    yield Worst(("POST", announced), "a right one", UPLOADS, lambda: announcement(scale), JSON)
    for what, text in (
        ("mistakes in storages", f'{{"size":4,"blocks":[],"storages":[{many("1", mistakes)}]}}'),
        ("mistakes in blocks", f'{{"size":4,"storages":[],"blocks":[{many("1", mistakes)}]}}'),
        ("too many blocks", json.dumps({"size": 2**62, "storages": [], "blocks": ["0" * 64] * scale})),
    ):
        yield Worst(("POST", announced), what, UPLOADS, lambda text=text: text.encode(), JSON)
    upload = f"{announced}/{{upload_id}}"
    here = f"{UPLOADS}/{place.upload_id}"
    yield Worst(("GET", upload), "a long one", here)
    yield Worst(
        ("PUT", f"{upload}/blocks/{{first}}-{{end}}"), "wrong bytes", f"{here}/blocks/0-1", lambda: bytes(BLOCK)
    )
    yield Worst(("POST", f"{upload}/commit"), "all missing", f"{here}/commit")
    yield Worst(("POST", f"{upload}/stage"), "all missing", f"{here}/stage")
    yield Worst(("DELETE", upload), "a long one", here)
    loose = "/v1/loose-files/{namespace}/{name}"
    for what, text in (
        ("mistakes in crc32s", f'{{"size":4,"storages":[],"blocks":[],"crc32s":[{many("null", mistakes)}]}}'),
        ("mistakes in storages", f'{{"size":4,"blocks":[],"storages":[{many("1", mistakes)}]}}'),
        ("one long text", json.dumps(recipe(b"", rest=["a" * mistakes]))),
        ("mistakes in rest", f'{{"size":4,"storages":[],"blocks":[],"crc32s":[],"rest":[{many("1", mistakes)}]}}'),
        ("bytes that shrink", json.dumps(recipe(bytes(mistakes)))),
    ):
        yield Worst(("PUT", loose), what, f"{LOOSE}?path=a/b", lambda text=text: text.encode(), JSON)
    yield Worst(("GET", loose), "a long path", f"{LOOSE}?under={'a' * 20_000}")
    yield Worst(("GET", f"{loose}/{{number}}"), "bytes that shrank", f"{LOOSE}/{place.loose}")
    yield Worst(("DELETE", loose), "a long path", f"{LOOSE}?under={'a' * 20_000}")
    yield Worst(("DELETE", model), "wide checkpoints", MODEL)
    yield Worst(("DELETE", checkpoint), "a long ref", f"{MODEL}/checkpoints/min:{'a' * 30_000}")
    yield Worst(("DELETE", checkpoint), "wide", one)


def reset_peak(pid: int) -> int:
    """Reset a process's peak memory, and return its current memory in bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _memory(pid, "VmRSS")


def peak(pid: int) -> int:
    """Return a process's peak memory since ``reset_peak``, in bytes."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
