"""The comparison with transformers: the checks see what they are meant to see, and the page says what was found."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "benchmarks/correctness"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import invariants
    import ours
    import report

    yield invariants, ours, report
    for name in ("invariants", "ours", "report"):
        del sys.modules[name]


@pytest.mark.parametrize("layer", ["mamba", "gated_deltanet", "minlstm", "hyena"])
def test_layers_of_ours_keep_every_invariant(modules, layer):
    invariants, ours, _ = modules
    for name, check in invariants.CHECKS.items():
        assert check(ours.Ours(layer)) < 1e-5, name


def test_a_model_that_ignores_what_it_is_told_is_found_out(modules):
    invariants, ours, _ = modules

    class Deaf(ours.Ours):
        def logits(self, tokens, mask=None, documents=None):
            return super().logits(tokens)

        def begin(self, tokens, mask=None):
            return super().begin(tokens)

        def go_on(self, tokens, cache):
            return self._apply(tokens, state=self.model.init_state(self.F, len(tokens)))

        def gradients(self, tokens, labels, micro):
            total = super().gradients(tokens, labels, micro)
            return {name: g * micro for name, g in total.items()}

    for name, check in invariants.CHECKS.items():
        assert check(Deaf("mamba")) > 1e-2, name


def test_the_page_tells_wrong_from_refused(modules):
    invariants, _, report = modules
    row = dict.fromkeys(invariants.CHECKS, 2e-7)
    first, second, *_ = invariants.CHECKS
    bad = {**row, first: 0.5, second: "ValueError: no padding, please"}
    page = report.page({"versions": "v", "backend": "cpu", "ours": {"good": row}, "theirs": {"bad": bad}})
    assert "| good | 2e-07 |" in page
    assert "| bad | **0.5** | refused | 2e-07 |" in page
    assert f"- bad, {second}: `ValueError: no padding, please`" in page
