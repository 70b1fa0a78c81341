"""Which stored prefix serves a prompt, and what goes when memory is short: plain decisions over block hashes."""
