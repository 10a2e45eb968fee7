"""The memo: values that a pickle numbers, to refer to them again."""

from .broken import Broken
from .nodes import Node


class Memo:
    """Memo slots: slots numbered in order are in ``dense``, other slots of strange pickles in ``sparse``.

    A slot with a large number costs no more memory. The machine's loop appends to ``dense`` and reads it directly, and
    calls this class otherwise.
    """

    __slots__ = ("dense", "max_slots", "sparse")

    def __init__(self, max_slots: int) -> None:
        self.dense: list[Node] = []
        self.sparse: dict[int, Node] = {}
        self.max_slots = max_slots

    def __len__(self) -> int:
        return len(self.dense) + len(self.sparse)

    def put(self, index: int, value: Node) -> None:
        if 0 <= index < len(self.dense):
            self.dense[index] = value
            return
        if not 0 <= index < 2**32:
            raise Broken("memo-index", f"memo slots are numbered from 0 to 2^32 - 1, not {index}")
        if len(self) >= self.max_slots and index not in self.sparse:
            raise Broken("memo-slots", f"it puts more than {self.max_slots} values in its memo")
        if index == len(self.dense):
            self.sparse.pop(index, None)
            self.dense.append(value)
        else:
            self.sparse[index] = value

    def get(self, index: int) -> Node:
        if 0 <= index < len(self.dense):
            return self.dense[index]
        if index in self.sparse:
            return self.sparse[index]
        raise Broken("memo-unknown", f"it reads memo slot {index}, which is still empty")
