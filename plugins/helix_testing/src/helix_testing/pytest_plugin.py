"""The pytest plugin of the kit. Loaded in everybody's pytest runs, so it imports nothing until it is asked for.

`--helix-backend=NAME` runs the backend suite; `--helix-seed=N` repeats its random inputs; `--helix-report=FILE`
writes how each level went.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helix_testing.levels import NOT_IMPLEMENTED

if TYPE_CHECKING:
    from collections.abc import Generator

LEVELS = ("descriptor", "basic", "ops", "grad", "train", "compile")

pytest.register_assert_rewrite(
    *(
        f"helix_testing.{part}"
        for part in (
            "backends",
            "command_line",
            "generators",
            "kernels",
            "layers",
            "levels",
            "memories",
            "optimizers",
            "schedules",
            "suite",
        )
    )
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the kit's options to pytest's."""
    group = parser.getgroup("helix", "Helix conformance kit")
    group.addoption(
        "--helix-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="run the conformance kit on this backend; alone if no test paths are given (repeatable)",
    )
    group.addoption("--helix-seed", type=int, metavar="N", help="seed of the kit's random inputs; default: a new one")
    group.addoption("--helix-report", metavar="FILE", help="write the outcome of each level as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and check what the options name."""
    config.addinivalue_line("markers", "slow: the layer kit on a backend that compiles for every shape; -m slow")
    names = config.getoption("--helix-backend")
    if config.getoption("--helix-report"):
        config.pluginmanager.register(_Report(config.getoption("--helix-report"), names), "helix-report")
    if not names:
        return
    from helix_core.errors import HelixError
    from helix_core.plugin_system import select

    for name in names:
        try:
            select("backend", name)
        except HelixError as error:
            raise pytest.UsageError(f"--helix-backend={name}: {error}") from error
    suite = str(Path(__file__).with_name("suite.py"))
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        config.args.append(suite)
    else:
        config.args[:] = [suite]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have the kit's classes say what their tests run over."""
    # The kit's classes say themselves what their tests run over.
    parametrize = getattr(metafunc.cls, "helix_parametrize", None)
    if parametrize is not None:
        parametrize(metafunc)
    if "helix_layer" in metafunc.fixturenames:  # any test may ask for the name of every layer installed, one by one
        from helix_core.plugin_system import components

        metafunc.parametrize("helix_layer", [component.descriptor.name for component in components("layer")])


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Any:
    """A NumPy generator with a fresh seed, which a failure report names."""
    import numpy as np

    seed = request.config.getoption("--helix-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    request.node.add_report_section("setup", "helix", f"repeat these random inputs with --helix-seed={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="class")
def backend_instance(backend_name: str) -> Any:
    """The backend under test, made once for a class."""
    from helix_core.plugin_system import create

    return create("backend", backend_name)


@pytest.fixture(scope="class")
def layer_case(request: pytest.FixtureRequest) -> Any:
    """A layer with parameters on a backend, made once for a class."""
    from helix_testing.layer_case import Case

    return Case(*request.param)


class _Report:
    """Collects how each level of each backend went."""

    def __init__(self, path: str, backends: list[str]) -> None:
        self.path = Path(path)
        self.outcomes: dict[str, dict[str, str]] = {name: dict.fromkeys(LEVELS, "not run") for name in backends}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        level = getattr(item, "function", self).__module__.rpartition(".")[2]
        name = getattr(item, "callspec", None) and item.callspec.params.get("backend_name")  # type: ignore[attr-defined]
        if name in self.outcomes and level in LEVELS:
            levels = self.outcomes[name]
            if report.failed:
                levels[level] = "failed"
            elif report.skipped and NOT_IMPLEMENTED in str(report.longrepr) and levels[level] == "not run":
                levels[level] = NOT_IMPLEMENTED
            elif report.when == "call" and report.passed and levels[level] != "failed":
                levels[level] = "passed"
        return report

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.outcomes, indent=2) + "\n")
