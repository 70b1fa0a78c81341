"""Which sequence is read, decoded or made to wait next: plain decisions, no arrays."""
