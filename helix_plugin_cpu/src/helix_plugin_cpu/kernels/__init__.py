"""Numba kernels, each with forward, forward_train, backward and residuals; `table` bundles them for the op table."""
