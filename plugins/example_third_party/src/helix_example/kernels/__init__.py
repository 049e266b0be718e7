"""Kernels of ops, a file each."""
