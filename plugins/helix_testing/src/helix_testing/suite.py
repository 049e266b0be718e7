"""What `pytest --helix-backend=NAME` runs."""

from __future__ import annotations

import pytest

from helix_testing.backends import BaseBackendTests


class TestBackend(BaseBackendTests):
    """The backend suite on every backend named on the command line."""

    @classmethod
    def helix_parametrize(cls, metafunc: pytest.Metafunc) -> None:
        metafunc.parametrize("backend_name", metafunc.config.getoption("--helix-backend"), scope="class")
