"""The documents list every rule under which a file is refused."""

import re

from tests.support.docs import ROOT

RAISED = re.compile(
    r'\brule(?:: str)? ?= ?"([a-z0-9-]+)"|\b(?:Broken|_?refused)\(\s*"([a-z0-9-]+)"|"([a-z]+-[a-z]+)"\)$', re.MULTILINE
)
ELSEWHERE = {"parser-busy"}
"""The code of another error, that looks like a rule."""


def test_every_rule_of_the_readers_is_in_the_table() -> None:
    documented = set(re.findall(r"`([a-z0-9-]+)`", (ROOT / "docs/formats.md").read_text()))
    raised = {
        next(filter(None, found))
        for folder in ("formats", "sandbox")
        for file in (ROOT / "app" / folder).rglob("*.py")
        for found in RAISED.findall(file.read_text())
    } - ELSEWHERE
    assert len(raised) > 60
    assert raised - documented == set()


def test_every_rule_in_the_table_is_one_of_the_readers() -> None:
    table = (ROOT / "docs/formats.md").read_text().partition("\n## Rules")[2]
    sources = "".join(file.read_text() for file in (ROOT / "app").rglob("*.py"))
    assert {rule for rule in re.findall(r"`([a-z0-9-]+)`", table) if f'"{rule}"' not in sources} == set()
