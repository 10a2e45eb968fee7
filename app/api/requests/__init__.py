"""Reading requests: paths, parameters, tokens, bodies and forms."""
