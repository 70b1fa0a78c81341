"""Message Batches: a queue of low priority that survives the server."""
