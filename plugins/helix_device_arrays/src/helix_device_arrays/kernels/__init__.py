"""Kernels of ops, in the kernel language: written once for every device."""
