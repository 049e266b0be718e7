"""Backends beside hand-written models of their own frameworks: times, memory, and equal results.

    pip install -r requirements-bench.txt
    python benchmarks/backends.py                  # every backend that is installed
    python benchmarks/backends.py metal            # rows whose file or work contains a word
    python benchmarks/backends.py --json results.json --table table.md

Rows live in `backend_rows/`, one file for a backend; `cpu.py` says how they are written and measured.
"""

from __future__ import annotations

import cpu

if __name__ == "__main__":
    cpu.main(obj="backend_rows")
