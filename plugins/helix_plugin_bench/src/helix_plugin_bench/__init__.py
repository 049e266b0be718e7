"""Benchmarks of what layers learn: `helix bench quality`."""
