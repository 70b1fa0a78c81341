"""Other programs' JSON to our values and back; nothing else."""
