"""Numba kernels. An op's module has forward, forward_train, backward and residuals; `table` bundles them."""
