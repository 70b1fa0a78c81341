"""What was said: conversations as trees of turns, in SQLite and in files, and what of them a model still sees."""
