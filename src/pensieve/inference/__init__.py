"""Who generates, behind one protocol."""
