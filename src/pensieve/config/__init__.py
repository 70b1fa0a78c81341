"""What the user asked for: typed settings and where each value came from."""
