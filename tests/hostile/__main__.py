"""The corpus as a table: the number of files in each class, and their outcomes."""

from tests.hostile.corpus import CLASSES
from tests.hostile.readings import readings


def main() -> None:
    total = [0, 0]
    print(f"{'class':<32}{'files':>7}{'refused':>9}{'inert':>7}")
    for name in CLASSES:
        read = readings({name: 1})
        refused = sum(bool(reading.rule) for reading in read)
        total = [total[0] + len(read), total[1] + refused]
        print(f"{name:<32}{len(read):>7}{refused:>9}{len(read) - refused:>7}")
    print(f"{'all':<32}{total[0]:>7}{total[1]:>9}{total[0] - total[1]:>7}")


main()
