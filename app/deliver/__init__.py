"""The read path: resolve a ref, select, lay out a virtual file, stream it.

``plan`` is pure and may run in a child process; ``spans`` and ``windows`` turn a virtual file into reads of blobs;
``read`` does and verifies the reads; ``service`` combines the steps.
"""
