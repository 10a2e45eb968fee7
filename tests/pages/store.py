"""A small store that looks like one in use, and a model with the names that hostile files have."""

import io
import math
from collections.abc import Iterator, Mapping
from random import Random

import httpx
import torch

HOSTILE = (
    "<script>document.title='owned'</script>",
    '" onmouseover="document.title=\'owned\'" x="',
    "javascript:document.title='owned'",
    "\u202egnp.exe \u2066name",
    "two\nlines\tand a tab",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; & ]]>",
)
"""Names that a file may hold, and that must be text on a page."""


def checkpoint(seed: int, *, frozen: bool = True, **fields: object) -> bytes:
    """A checkpoint whose backbone never changes, unless it isn't ``frozen``."""
    backbone = torch.Generator().manual_seed(0 if frozen else seed)
    head = torch.Generator().manual_seed(seed)
    weights = {
        "backbone.conv1.weight": torch.randn(16, 3, 5, 5, generator=backbone),
        "backbone.conv2.weight": torch.randn(32, 16, 5, 5, generator=backbone),
        "head.weight": torch.randn(10, 800, generator=head),
        "head.bias": torch.randn(10, generator=head),
    }
    file = io.BytesIO()
    torch.save({"model_state_dict": weights, **fields}, file)
    return file.getvalue()


def curve(run: int, length: int) -> Iterator[tuple[float, float]]:
    """Loss and accuracy of a run that learns, with the noise of training."""
    random = Random(run)
    for epoch in range(1, length + 1):
        loss = (2.3 - 0.25 * run) * math.exp(-epoch / (5 + 2 * run)) + 0.12 + 0.02 * run + random.gauss(0, 0.03)
        yield max(0.02, loss), min(0.99, 0.97 - loss / 3 + random.gauss(0, 0.008))


def put(http: httpx.Client, model: str, content: bytes, **query: object) -> dict:
    answer = http.post(f"/v1/models/{model}/checkpoints", params=query, content=content)
    assert answer.status_code == 201, answer.text
    return answer.json()


def fill_run(http: httpx.Client, model: str, run: str | None, number: int, length: int) -> None:
    for epoch, (loss, accuracy) in enumerate(curve(number, length), 1):
        named = {} if run is None else {"run": run}
        metrics = {"metric.val_acc": round(accuracy, 5), "metric.lr": 0.01 * 0.9**epoch}
        content = checkpoint(100 * number + epoch, epoch=epoch)
        put(http, model, content, epoch=epoch, step=epoch * 250, loss=round(loss, 5), **named, **metrics)


def fill(http: httpx.Client, epochs: int = 8) -> None:
    """Fill an empty server; the longest run has so many ``epochs``."""
    for number, run in enumerate(("baseline", "wide-head", "cosine-lr")):
        fill_run(http, "vision/classifier", run, number, epochs - number)
    here = "/v1/models/vision/classifier"
    changes: tuple[tuple[str, str, Mapping[str, object]], ...] = (
        ("PATCH", here, {"best": "max:val_acc"}),
        ("PUT", f"{here}/aliases/prod", {"ref": "best", "note": "A/B test of November"}),
        ("PUT", f"{here}/aliases/staging", {"ref": "latest"}),
        ("PUT", f"{here}/checkpoints/{epochs}/pin", {"reason": "in the paper"}),
        ("PATCH", f"{here}/checkpoints/latest", {"tags": {"author": "mira", "dataset": "cifar10@v3"}}),
    )
    for method, path, body in changes:
        http.request(method, path, json=body).raise_for_status()
    http.delete(f"{here}/checkpoints/3").raise_for_status()
    fill_run(http, "vision/detector", "warm-start", 3, epochs // 2)
    fill_run(http, "speech/wav2vec-small", None, 4, epochs // 2)
    put(http, "nlp/tokens.embedding", checkpoint(7, frozen=False))


def fill_hostile(http: httpx.Client) -> str:
    """Add a model with everything that a name may hold; return the model."""
    model = "hostile/names"
    for number, name in enumerate(HOSTILE):
        keys = {name: torch.ones(2), f"{name} {'k' * 4_000}": torch.ones(1)}
        file = io.BytesIO()
        torch.save({"state": keys, name: torch.nn.Linear(2, 1).state_dict()}, file)
        told = {"run": name, "epoch": number, "loss": 1 / (number + 1), f"metric.{name}": number, f"tag.{name}": name}
        put(http, model, file.getvalue(), **told)
        note = {"ref": str(number + 1), "note": name}
        http.put(f"/v1/models/{model}/aliases/alias{number}", json=note).raise_for_status()
    http.put(f"/v1/models/{model}/checkpoints/1/pin", json={"reason": HOSTILE[0]}).raise_for_status()
    return model
