"""``python -m demo [--keep]``: train, save, list, load, resume and warm-start, with a short text for each step.

With ``--keep`` there is more to see, and the server runs on until Ctrl+C.
"""

import sys
import threading
import time
from collections.abc import Iterable

import torch
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.classifier import Classifier, Data, Run, TinyDetector, make_data, new_run
from demo.server import running_server
from stateroom import Client, Model

EPOCHS = 4
INTERRUPTED_AFTER = 2
MODEL = "demo/classifier"

console = Console(highlight=False)
"""The console for all output."""


def main(*, keep: bool) -> None:
    started = time.monotonic()
    torch.set_num_threads(1)  # a model this small is slower with more threads
    torch.manual_seed(0)
    training, test = make_data(4000, seed=1), make_data(500, seed=2)
    console.print()
    console.print(Panel("[b]Stateroom[/] in a minute: the common tasks with checkpoints", expand=False))
    with running_server() as url:
        step("Start a server", f"A real server on [cyan]{url}[/], with SQLite and a folder. Open it in a browser.")
        with Client(url) as client:
            model = client.model(MODEL)
            run = train_and_save(model, training)
            show_checkpoints(model)
            load_the_best(model, run, test)
            resume(model, run, training)
            warm_start(model)
            if keep:
                train_more(client, training)
                stay(url)
            else:
                summary(model, time.monotonic() - started)


def train_and_save(model: Model, training: Data) -> Run:
    step(
        "Train, and save after each epoch",
        "One call sends the file that torch.save would write. The server reads epoch and loss from it.",
    )
    code("model.save({'epoch': 1, 'model_state_dict': net.state_dict(), ...})")
    run = new_run()
    for _ in range(EPOCHS):
        run.train(training)
        checkpoint = model.save(as_checkpoint(run))
        console.print(f"   epoch {run.epoch}   loss {run.loss:.4f}   saved as [cyan]{checkpoint}[/]")
    return run


def show_checkpoints(model: Model) -> None:
    step("List", "The server has read each file, without running any of its code.")
    code("model.checkpoints()")
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for column in ("version", "epoch", "loss", "size", "components"):
        table.add_column(column, justify="left" if column == "components" else "right")
    best = model.checkpoint("best")
    for checkpoint in model.checkpoints():
        table.add_row(
            f"{'best = ' if checkpoint.version == best.version else ''}{checkpoint.version}",
            str(checkpoint.epoch),
            f"{checkpoint.loss:.4f}",
            f"{checkpoint.bytes / 1000:.0f} kB",
            ", ".join(component.name for component in checkpoint.components),
            style="green" if checkpoint.version == best.version else "",
        )
    console.print(indented(table))


def load_the_best(model: Model, run: Run, test: Data) -> None:
    step("Load the best, on this machine's CPU", "Whatever device it was saved on, this download loads on the CPU.")
    code("net.load_state_dict(model.state_dict('best', map_location='cpu'))")
    loaded = Classifier()
    loaded.load_state_dict(model.state_dict("best", map_location="cpu"))
    with torch.no_grad():
        ours, theirs = run.model.eval()(test.images), loaded.eval()(test.images)
    right = (theirs.argmax(1) == test.labels).float().mean().item()
    console.print(f"   the trained model says  {numbers(ours.argmax(1)[:16])} ...")
    console.print(f"   the loaded model says   {numbers(theirs.argmax(1)[:16])} ...")
    verdict(
        torch.equal(ours, theirs), f"equal scores, bit for bit, on {len(test.labels)} test images ({right:.1%} correct)"
    )


def resume(model: Model, run: Run, training: Data) -> None:
    step(
        f"Resume from epoch {INTERRUPTED_AFTER}",
        f"As if the job had been stopped there: load everything, continue training to epoch {EPOCHS}.",
    )
    code(f"checkpoint = model.load('epoch:{INTERRUPTED_AFTER}')")
    checkpoint = model.load(f"epoch:{INTERRUPTED_AFTER}", map_location="cpu")
    resumed = new_run()
    resumed.model.load_state_dict(checkpoint["model_state_dict"])
    resumed.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    resumed.epoch = checkpoint["epoch"]
    while resumed.epoch < EPOCHS:
        resumed.train(training)
        console.print(f"   epoch {resumed.epoch}   loss {resumed.loss:.4f}")
    verdict(
        same(run.model.state_dict().values(), resumed.model.state_dict().values())
        and same(momentum(run), momentum(resumed)),
        "the same weights and momentum, bit for bit, as the uninterrupted run",
    )


def warm_start(model: Model) -> None:
    step("Warm-start another model", "The same convolutions, another head. Only matching tensors are sent.")
    code("model.warmstart(net, 'best', include=['conv*'])")
    net = TinyDetector()
    report = model.warmstart(net, "best", include=["conv*"])
    trained = model.state_dict("best", map_location="cpu")
    console.print(f"   matched      {', '.join(report.matched_keys)}")
    console.print(f"   left as is   {', '.join(report.missing_keys)}")
    matched = [net.state_dict()[key] for key in report.matched_keys]
    whole = model.checkpoint("best").bytes
    verdict(
        same(matched, [trained[key] for key in report.matched_keys]),
        f"{report.bytes:,} bytes of tensors were sent, of a checkpoint of {whole:,}",
    )


def train_more(client: Client, data: Data) -> None:
    step("Train more, for the page", "A second run with another seed, and a fine-tune that names where it began.")
    model, second = client.model(MODEL), client.model(MODEL, run="second seed")
    torch.manual_seed(1)
    run = new_run()
    for _ in range(2 * EPOCHS):
        run.train(data)
        second.save(as_checkpoint(run))
    model.alias("prod", "best", note="the better of two seeds")
    model.pin(EPOCHS, reason="in the paper")
    best, fine = model.checkpoint("best"), client.model("demo/fine-tuned", run="fine-tune")
    tuned = new_run()
    tuned.model.load_state_dict(model.state_dict(best, map_location="cpu"))
    for _ in range(EPOCHS):
        tuned.train(data)
        fine.save(as_checkpoint(tuned), warm_started_from=best)
    console.print("   [green]✓[/] two runs of demo/classifier, and one of demo/fine-tuned")


def stay(url: str) -> None:
    console.print()
    console.print(Panel(f"[b]{url}[/] is the page. Ctrl+C stops the server, and removes its data.", expand=False))
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("\nThe server is stopped, and its data is removed.")


def summary(model: Model, seconds: float) -> None:
    stored = sum(checkpoint.new_bytes for checkpoint in model.checkpoints())
    console.print()
    console.print(
        Panel(
            f"{EPOCHS} checkpoints, {stored / 1000:.0f} kB stored, {seconds:.0f} seconds.\n"
            "The server is stopped, and its data is removed.\n\n"
            "[b]make demo KEEP=1[/]     the same, and the web page stays up, with more to see\n"
            "[b]make serve[/]           starts a server for your own checkpoints\n"
            "[b]README.md[/]            a tour with curl, and one in Python\n"
            "[b]docs/http-api.md[/]     every route, filter and error\n"
            "[b]demo/__main__.py[/]     the code of this demo",
            title="Done",
            title_align="left",
            expand=False,
        )
    )


def as_checkpoint(run: Run) -> dict[str, object]:
    """A general checkpoint, as in PyTorch's own tutorials."""
    return {
        "epoch": run.epoch,
        "model_state_dict": run.model.state_dict(),
        "optimizer_state_dict": run.optimizer.state_dict(),
        "loss": run.loss,
    }


def momentum(run: Run) -> list[torch.Tensor]:
    return [state["momentum_buffer"] for state in run.optimizer.state_dict()["state"].values()]


def same(these: Iterable[torch.Tensor], those: Iterable[torch.Tensor]) -> bool:
    """Tell whether all tensors are equal and on the same device."""
    return all(torch.equal(this, that) for this, that in zip(these, those, strict=True))


def step(title: str, text: str) -> None:
    console.print(f"\n[b]{title}[/]")
    console.print(indented(f"[dim]{text}[/]"))


def code(text: str) -> None:
    console.print(Text(f"   >>> {text}", style="magenta"))


def verdict(claim: bool, text: str) -> None:
    """Print that a claim holds. If it does not hold, the demo fails."""
    if not claim:
        raise SystemExit(f"NOT true, and this is a bug: {text}")
    console.print(f"   [green]✓[/] {text}")


def numbers(values: torch.Tensor) -> str:
    return " ".join(map(str, values.tolist()))


def indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 3))


if __name__ == "__main__":
    main(keep="--keep" in sys.argv[1:])
