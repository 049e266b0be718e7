"""A short drill: a few kills, damaged manifests and poison."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_short_drill_passes():
    command = [sys.executable, Path(__file__).parent, "--kills", "6", "--only", "kills", "damaged_manifests", "poison"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "drill passed: 4 cases" in done.stdout
