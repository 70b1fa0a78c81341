"""MLX as a `Backend`: one engine thread owns every array; policy is plain Python beside it."""
