"""Declared requirements of distributions, and environments with nothing else."""

import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement


def closure(requirement: str, places: Sequence[str] = sys.path) -> dict[str, Distribution]:
    """Return all distributions that pip would install for ``stateroom[torch]``, by name; the first found in ``places``,
    folders of packages.

    Raises LookupError for a distribution that is missing, or has a version that was not asked for.
    """
    found: dict[str, Distribution] = {}
    done: set[tuple[str, str]] = set()
    todo = [Requirement(requirement)]
    while todo:
        wanted = todo.pop()
        name = normal(wanted.name)
        if name not in found:
            found[name] = _find(wanted, places)
        for extra in {"", *wanted.extras} - {extra for known, extra in done if known == name}:
            done.add((name, extra))
            for line in found[name].requires or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return found


def expose(found: dict[str, Distribution], site: Path) -> None:
    """Link the files of these distributions, and nothing else, into a folder of packages."""
    for distribution in found.values():
        for top in sorted({file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}):
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))


def installed_bytes(found: dict[str, Distribution]) -> dict[str, int]:
    """Return each distribution's size on the disk, by name."""
    return {name: sum(_sizes(distribution)) for name, distribution in found.items()}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies_folder() -> str:
    """Return the folder of this Python's packages."""
    return sysconfig.get_path("purelib")


def _find(wanted: Requirement, places: Sequence[str]) -> Distribution:
    for distribution in distributions(name=wanted.name, path=list(places)):
        if not wanted.specifier.contains(distribution.version, prereleases=True):
            raise LookupError(f"{wanted} is asked for, and {distribution.version} is installed")
        return distribution
    raise LookupError(f"{wanted} is not installed")


def _sizes(distribution: Distribution) -> Iterator[int]:
    for file in distribution.files or ():
        path = Path(str(file.locate()))
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.stat().st_size
