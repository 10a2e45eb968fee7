"""How the machine's parts say that a pickle breaks a rule; the machine adds where, and refuses the file."""


class Broken(Exception):
    """``rule`` names the rule that is broken."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
