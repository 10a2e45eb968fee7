"""HTTP/1.1 on the wire: heads, bodies, limits and refusals, below the application."""
