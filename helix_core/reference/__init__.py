"""Core's own plugin: the reference backend, on NumPy."""
