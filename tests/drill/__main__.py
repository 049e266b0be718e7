"""The resilience drill: `python tests/drill` disturbs tiny runs in every way that it knows and compares what is left.

Prints what each case did, and a closing line. Exits with 1, and keeps its folder, if something was lost.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random

# Before anything is imported that would start threads, which a fork does not survive.
os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", MPLBACKEND="agg")


def main():
    from cases import CASES, Drill
    from tiny import Wrong

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="processes to kill")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments; default: another every time")
    parser.add_argument("--only", nargs="*", default=[], metavar="CASE", help="cases to go through")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "little")
    folder, began = Path(tempfile.mkdtemp(prefix="helix-drill-")), time.monotonic()
    drill = Drill(folder, options.kills, Random(seed))
    print(f"drill in {folder}, seed {seed}", flush=True)
    chosen = [case for case in CASES if not options.only or case is CASES[0] or case.__name__ in options.only]
    for case in chosen:
        since = time.monotonic()
        try:
            said = case(drill)
        except (Wrong, TimeoutError) as error:
            print(f"{case.__name__}: FAILED after {time.monotonic() - since:.0f} s: {error}")
            print(f"drill failed; what it left is in {folder}; --seed {seed} repeats its choices")
            return 1
        print(f"{case.__name__}: {said} ({time.monotonic() - since:.0f} s)", flush=True)
    shutil.rmtree(folder)
    print(f"drill passed: {len(chosen)} cases, nothing was lost, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
