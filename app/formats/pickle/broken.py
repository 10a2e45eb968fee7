"""The error of the machine's parts for a broken rule; the machine adds the place, and refuses the file."""


class Broken(Exception):
    """A pickle breaks the rule named ``rule``."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
