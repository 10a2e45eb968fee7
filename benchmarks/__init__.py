"""One script a question; ``python -m benchmarks`` runs them and prints a row for each bar.

A script compares us with a peer or with a limit of the machine in the same run, by turns, and reports the median of
their ratios: on a noisy machine nothing else can be compared. Servers are real processes that skip fsync on both
sides, everything goes over the loopback, and the page cache is warm.
"""
