"""Helix on graphics cards: torch tensors and Triton kernels with forward and backward."""
