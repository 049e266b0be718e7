"""Kernels of ops, a file each, in MLX."""
