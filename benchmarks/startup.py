"""How long a cold start takes: bare Python, `import helix_core`, `helix plugins`. Medians of whole processes.

python benchmarks/startup.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

SAMPLES = 15


def seconds(command: list[str]) -> float:
    """The median wall time of a command, after one run that fills the disk cache."""
    times = []
    for _ in range(SAMPLES + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    helix = shutil.which("helix", path=str(Path(sys.executable).parent)) or "helix"
    bare = seconds([sys.executable, "-c", "pass"])
    rows = [
        {"what": "bare python", "seconds": bare, "budget": None},
        {
            "what": "import helix_core, over bare",
            "seconds": seconds([sys.executable, "-c", "import helix_core"]) - bare,
            "budget": 0.05,
        },
        {"what": "helix plugins", "seconds": seconds([helix, "plugins"]), "budget": 0.3},
        {"what": "helix --help", "seconds": seconds([helix, "--help"]), "budget": 0.3},
    ]
    for row in rows:
        budget = f"  (budget {row['budget'] * 1e3:.0f} ms)" if row["budget"] else ""
        print(f"{row['what']:32}{row['seconds'] * 1e3:8.1f} ms{budget}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
