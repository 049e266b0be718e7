"""Helix on the CPU: torch tensors and Numba kernels with forward and backward."""
