"""Coding agents, started against this machine's server, apart from the user's own. Knows no terminal library."""
