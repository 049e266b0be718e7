"""MLX for Helix: models on Apple silicon's GPUs, and on MLX's CPU device under Linux."""
