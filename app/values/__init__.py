"""The nouns every layer shares: small frozen values, the standard library only, no I/O."""
