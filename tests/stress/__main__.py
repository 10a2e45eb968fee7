"""``make stress``: the long tests, one after another, and their figures."""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tests.stress import kills, mixed
from tests.support.postgres import running_postgres


def tell(title: str, counts: Counter[str]) -> None:
    print(f"{title}: nothing lost, nothing wrong", flush=True)
    for name, count in counts.items():
        print(f"  {count:>9,} {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", choices=["sqlite", "postgresql", "kills"])
    parser.add_argument("--ready-within", type=float, default=kills.READY_WITHIN, help="on a machine that is busy")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    def wanted(name: str) -> bool:
        return asked.only in {None, name}

    with tempfile.TemporaryDirectory(prefix="stress-") as name:
        folder = Path(name)
        if wanted("sqlite"):
            tell("Stress on SQLite", mixed.run(folder / "sqlite", asked.operations, seed=asked.seed))
        if wanted("postgresql"):
            with running_postgres() as postgres:
                counts = mixed.run(
                    folder / "postgresql", asked.operations, postgres.database(), servers=2, seed=asked.seed
                )
                tell("Stress on PostgreSQL, two servers", counts)
        if wanted("kills"):
            tell("Kills", kills.run(folder / "kills", asked.kills, asked.seed, asked.ready_within))


if __name__ == "__main__":
    main()
