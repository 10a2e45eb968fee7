"""Results of a run, as ``python -m benchmarks`` writes them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Results:
    """``rows`` are those of ``Row.to_json``, by question and by what was measured."""

    environment: Mapping[str, str]
    rows: Mapping[Key, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "Results":
        document = json.loads(path.read_text())
        return cls(document["environment"], {(row["question"], row["what"]): row for row in document["rows"]})
