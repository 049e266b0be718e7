"""The generator kit on every generator of this distribution."""

import pytest

from helix_core.plugin_system import components
from helix_core.testing import BaseGeneratorTests

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
    "dyck": (({}, {"seq_len": 2, "kinds": 9}, {"max_depth": 1}), ({"seq_len": 7}, {"kinds": 1}, {"opening": 1.0})),
    "modular-arithmetic": (
        ({}, {"modulus": 97, "terms": 2, "operators": ["+"]}),
        ({"modulus": 1}, {"terms": 1}, {"operators": []}, {"operators": ["+", "+"]}, {"operators": ["/"]}),
    ),
}

for _name, (_configs, _impossible) in CASES.items():
    _label = "Test" + _name.title().replace("-", "")
    globals()[_label] = type(
        _label,
        (BaseGeneratorTests,),
        {"generator": f"synthetic/{_name}", "configs": _configs, "impossible": _impossible, "__module__": __name__},
    )


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
