"""The backend metal beside MLX, on whatever device MLX has here."""

from backend_rows import mamba

ROWS = mamba("metal", "mamba_mlx", train=[[1, 256], [2, 256]], prefill=[[1, 1024]])
