"""The generator kit on every generator of this distribution."""

import pytest

from helix_core.plugin_system import components
from helix_testing import BaseGeneratorTests
from helix_testing.generators import check_elsewhere

CASES = {
    "markov": (
        ({"seq_len": 32}, {"seq_len": 2, "order": 3, "vocab_size": 5}, {"concentration": 50.0, "seq_len": 1}),
        ({"vocab_size": 1}, {"order": 0}, {"concentration": 0.0}, {"vocab_size": 300, "order": 3}, {"seq_len": 0}),
    ),
    "zipf": (({}, {"exponent": 0.0, "vocab_size": 3}, {"shift": 2.7}), ({"exponent": -1.0}, {"vocab_size": 1})),
    "pcfg": (
        ({"seq_len": 40}, {"rules": 7, "nonterminals": 1, "seq_len": 9}),
        ({"branching": 0.5}, {"rules": 1}, {"terminals": 0}),
    ),
    "copying": (({}, {"tokens": 1, "lag": 0, "vocab_size": 4}), ({"tokens": 0}, {"lag": -1}, {"vocab_size": 3})),
    "selective-copying": (
        ({"context": 64}, {"context": 3, "tokens": 3, "vocab_size": 4}),
        ({"tokens": 65}, {"vocab_size": 3}, {"context": 0}),
    ),
    "induction-heads": (({}, {"seq_len": 3, "vocab_size": 3}), ({"seq_len": 2}, {"vocab_size": 2})),
    "associative-recall": (
        ({}, {"pairs": 4, "seq_len": 16, "vocab_size": 10}, {"random_filler": False, "power": 1.0}),
        ({"pairs": 65}, {"vocab_size": 32}, {"power": 0.0}),
    ),
    "listops": (({}, {"seq_len": 5}, {"nesting": 1.0, "max_depth": 30}), ({"seq_len": 4}, {"max_args": 1})),
    "parity": (({}, {"seq_len": 9, "modulus": 5}), ({"seq_len": 0}, {"modulus": 1})),
    "dyck": (({}, {"seq_len": 2, "kinds": 9}, {"max_depth": 1}), ({"seq_len": 7}, {"kinds": 1}, {"opening": 1.0})),
    "modular-arithmetic": (
        ({}, {"modulus": 97, "terms": 2, "operators": ["+"]}),
        ({"modulus": 1}, {"terms": 1}, {"operators": []}, {"operators": ["+", "+"]}, {"operators": ["/"]}),
    ),
    "trend-seasonality": (
        ({"length": 64}, {"periods": [], "amplitudes": [], "missing": 0.3}, {"noise": 0.0, "curvature": 0.1}),
        ({"periods": [1.0]}, {"periods": [65.0]}, {"amplitudes": [1, 2]}, {"noise": -1.0}, {"slope": float("nan")}),
    ),
    "arma": (
        ({"length": 64}, {"ar": [], "ma": [], "length": 9}, {"missing": 0.2, "gaps": "blocks"}, {"integrate": 2}),
        ({"ar": [1.0]}, {"ar": [0.5, 0.6]}, {"ma": [2.0]}, {"sigma": 0.0}, {"missing": 1.0}, {"length": 1}),
    ),
    "power-law-noise": (({"length": 64}, {"length": 65, "exponent": 2.0}), ({"exponent": 9.0}, {"sigma": 0.0})),
    "regime-shifts": (({"length": 64}, {"regimes": 2, "dwell": 1.0}), ({"regimes": 1}, {"dwell": 0.5})),
    "shapes": (({"size": 16}, {"noise": 0.3, "size": 9}), ({"size": 3}, {"smallest": 0.4, "largest": 0.2})),
    "textures": (({"size": 32}, {"size": 16, "fastest": 7.0}), ({"fastest": 16.0}, {"slowest": 13.0}, {"contrast": 0})),
    "fractals": (({"size": 32, "points": 500}, {"size": 16, "rotate": False, "points": 100}), ({"points": 1},)),
    "erdos-renyi": (({}, {"p": 0.0, "nodes": 2}, {"p": 1.0, "nodes": 9}), ({"p": 1.1}, {"nodes": 1})),
    "barabasi-albert": (({"nodes": 40}, {"nodes": 2, "m": 1}), ({"m": 40}, {"m": 0})),
    "watts-strogatz": (({"nodes": 40}, {"k": 2, "nodes": 5, "p": 1.0}), ({"k": 3}, {"k": 40}, {"p": -0.1})),
    "stochastic-block": (({"nodes": 40}, {"blocks": 1, "nodes": 3}), ({"blocks": 41}, {"inside": 2.0})),
    "grammar-text": (
        ({}, {"grammar": {"A": ["a A", "b", "c"]}, "start": "A", "sentences": 2}),
        (
            {"start": "X"},
            {"grammar": {"S": ["S S", "a"]}},
            {"grammar": {"S": ["S"]}},
            {"grammar": {"S": []}},
            {"sentences": 0},
        ),
    ),
    "templates": (
        ({}, {"templates": ["{x}+{x}{y}"], "slots": {"x": ["é", "ß"], "y": [*"abcdefghijklm"]}}),
        ({"templates": ["{who}"]}, {"slots": {}}, {"templates": []}),
    ),
    "scenes": (({"size": 32, "sound": 256}, {"size": 32, "sound": 256, "mismatch": 0.5, "noise": 0.0}), ({"size": 8},)),
}

for _name, (_configs, _impossible) in CASES.items():
    _label = "Test" + _name.title().replace("-", "")
    globals()[_label] = type(
        _label,
        (BaseGeneratorTests,),
        {
            "generator": f"synthetic/{_name}",
            "configs": _configs,
            "impossible": _impossible,
            "test_another_process_gives_the_same_bytes": None,  # one process for all, below
            "__module__": __name__,
        },
    )


def test_another_process_gives_the_same_bytes():
    check_elsewhere([(f"synthetic/{name}", config) for name, (configs, _) in CASES.items() for config in configs])


def test_every_generator_is_here():
    assert {c.name for c in components("generator") if c.plugin == "synthetic"} == set(CASES)


@pytest.mark.slow
def test_many_samples_keep_their_schema(rng):
    from helix_core.plugin_system import create

    for name, (configs, _) in CASES.items():
        for config in configs:
            made = create("generator", f"synthetic/{name}", **config)
            for index in range(1000):
                sample = made.sample(int(rng.integers(2**63)), index)
                assert all(spec.problem(sample[field]) is None for field, spec in made.schema().items())
