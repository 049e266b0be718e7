"""The backend jax beside JAX."""

from backend_rows import mamba

ROWS = mamba("jax", "mamba_jax", train=[[2, 256], [4, 1024]], prefill=[[1, 1024], [1, 4096]])
