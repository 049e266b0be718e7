"""PEP 508 requirements, checked from metadata."""

import pytest

from helix_core.plugin_system.requirements import unmet_requirement
from helix_testing.dists import write_dist


@pytest.fixture(autouse=True)
def installed(site):
    unmet_requirement.cache_clear()
    requires = ['deep>=3; extra == "fast"', "absent-base", 'nightly; extra == "plain"']
    write_dist(site.folder, "Some.Thing", "2.1", requires=requires)
    write_dist(site.folder, "nightly", "3.0.dev5+cu130")
    yield
    unmet_requirement.cache_clear()


@pytest.mark.parametrize(
    "requirement",
    [
        "some-thing",
        "some_thing>=2,<3",
        "some-thing[plain]",
        "some-thing[unheard-of]",
        "nightly>=2.6",
        "nightly==3.0.dev5",
        'absent; sys_platform == "amiga"',
        'absent; extra == "gpu"',
    ],
)
def test_met(requirement):
    assert unmet_requirement(requirement) is None


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ("absent>=2.6", "needs absent>=2.6, not installed"),
        ("some-thing>=2.6", "needs some-thing>=2.6, found 2.1"),
        ("nightly>=3.0", "needs nightly>=3.0, found 3.0.dev5+cu130"),
        ("some-thing[fast]", "needs deep>=3, not installed (for some-thing[fast])"),
        ('absent; python_version > "3"', "needs absent, not installed"),
        ("not a requirement", "its requirement 'not a requirement' is not valid PEP 508"),
    ],
)
def test_unmet(requirement, reason):
    assert unmet_requirement(requirement) == reason
