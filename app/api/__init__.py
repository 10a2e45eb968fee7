"""HTTP, and nothing else: routes, what they read and answer, and how an error reads on the wire."""
