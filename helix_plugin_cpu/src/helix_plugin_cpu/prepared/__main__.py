"""`python -m helix_plugin_cpu.prepared [TARGET ...]`: compile the kernels ahead, into the package's own folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from helix_plugin_cpu.prepared.archive import FOLDER
from helix_plugin_cpu.prepared.build import KERNELS, build, build_here
from helix_plugin_cpu.prepared.targets import TARGETS


def main() -> None:
    """Build archives, all of them or the named ones."""
    parser = argparse.ArgumentParser(prog="python -m helix_plugin_cpu.prepared", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the archives go")
    parser.add_argument("--kernels", type=Path, default=KERNELS, help="the list of kernels")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # a part of `build`, in its own process
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"unknown target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    targets = arguments.targets or list(TARGETS)
    if arguments.here:
        build_here(arguments.folder, targets, arguments.kernels)
    else:
        for path in build(arguments.folder, targets, arguments.kernels):
            print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
