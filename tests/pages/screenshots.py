"""``python -m tests.pages.screenshots [FOLDER]``: a picture of every page, at two sizes, in both themes."""

import sys
import tempfile
from pathlib import Path

from tests.pages.store import fill
from tests.support.browser import DESKTOP, PHONE, running_browser, visiting
from tests.support.server import PYTHON_M_APP, Server, start_server

PAGES = {
    "models": "/",
    "model": "/models/vision/classifier",
    "checkpoint": "/models/vision/classifier/checkpoints/best",
    "diff": "/models/vision/classifier/diff/1/8",
    "trash": "/models/vision/classifier/trash",
    "events": "/events",
    "namespaces": "/namespaces",
    "upload": "/upload?model=vision/classifier",
    "missing": "/models/vision/nothing",
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, running_browser() as browser:
        server, empty, guarded = (
            start_server(Path(data) / name / "data", env={"STATEROOM_DURABLE": "off", **env}, command=PYTHON_M_APP)
            for name, env in (("full", {}), ("empty", {}), ("guarded", {"STATEROOM_SERVER_TOKEN": "s3cret"}))
        )
        with server.client() as http:
            fill(http, epochs=24)
        wanted: list[tuple[str, Server, str]] = [(name, server, path) for name, path in PAGES.items()]
        wanted += [("empty", empty, "/"), ("sign-in", guarded, "/sign-in")]
        try:
            for name, of, path in wanted:
                for size in (DESKTOP, PHONE):
                    for theme in ("light", "dark"):
                        with visiting(browser, of.base_url, size, theme=theme) as visit:
                            visit.go(path).screenshot(path=folder / f"{name}-{size[0]}-{theme}.png", full_page=True)
        finally:
            for each in (server, empty, guarded):
                each.kill()
    print(f"{len(list(folder.glob('*.png')))} pictures are in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots"))
