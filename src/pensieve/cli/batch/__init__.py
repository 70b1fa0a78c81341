"""`pensieve batch`: many prompts from a file, their answers into another. The other files are its parts."""

from pensieve.cli.batch.command import batch

__all__ = ["batch"]
