"""A fingerprint of the kernels' source, so that Numba's disk cache never serves code of an earlier version.

Numba looks at the file of the cached function only, not at the files it takes its inner loops from. Compiled entry
points therefore have a last parameter that defaults to this number: defaults are part of the cached signature.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def _fingerprint() -> int:
    digest = hashlib.blake2b(digest_size=7)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return int.from_bytes(digest.digest(), "little")


SOURCES = _fingerprint()
