"""Benchmarks, one script for each question. ``python -m benchmarks`` runs them and prints a row for each bar.

A script compares us with a peer or with a limit of the machine, by turns in the same run, and reports the median of the
ratios, because on a noisy machine no other figure can be compared. Servers are real processes that skip fsync on both
sides, all traffic goes over the loopback, and the page cache is warm.
"""
