"""Pickles, read symbolically: opcodes become inert nodes, and no global is ever resolved."""
