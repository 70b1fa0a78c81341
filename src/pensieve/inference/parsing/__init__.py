"""Model text to events."""
