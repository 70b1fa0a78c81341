"""Which models exist, and where they are."""
