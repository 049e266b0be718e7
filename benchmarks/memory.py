"""What the topological memory costs and what it gains, each row beside its peer in one run.

    python benchmarks/memory.py links      # 10 million links: bytes, observations per second
    python benchmarks/memory.py search     # 1 million vectors: recall@10 against exact search, latency
    python benchmarks/memory.py cache      # the stability score as an eviction policy beside LRU, LFU, ARC, TinyLFU
    python benchmarks/memory.py language   # held-out bits/byte with and without memory, at equal parameters

Every row writes benchmarks/results/memory-ROW.json; `--small` runs a tenth of the size and writes nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
from pathlib import Path

ROWS = ("links", "search", "cache", "language")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--small", action="store_true", help="a tenth of the size; nothing is written")
    arguments = parser.parse_args()
    result = importlib.import_module(f"memory_rows.{arguments.row}").run(small=arguments.small)
    text = json.dumps({"python": platform.python_version(), "machine": platform.machine(), **result}, indent=2)
    print(text)
    if not arguments.small:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        (folder / f"memory-{arguments.row}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
