"""Kernels of ops, a file each, that are better said in another way than their reference."""
