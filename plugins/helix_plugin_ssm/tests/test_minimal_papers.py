"""minGRU and minLSTM against the paper's equations, step by step."""

import numpy as np
import pytest

from helix_core import create
from helix_core.kinds.params import init_params


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_it_is_the_papers_unit(name, rng):
    F = create("backend", "reference").bind(dtype="float64")
    layer = create("layer", name, d_model=6, expand=1.5)
    p = {
        k: v.astype(np.float64) + 0.1 * rng.normal(size=v.shape) for k, v in init_params(layer.param_specs(), 0).items()
    }
    x, h = rng.normal(size=(9, 6)), np.zeros(9)
    expected = []
    for x_t in x:

        def affine(part, x_t=x_t):
            return p[f"{part}.weight"] @ x_t + p[f"{part}.bias"]

        new = affine("to_hidden")
        new = np.where(new > 0, new + 0.5, sigmoid(new))
        if name == "mingru":
            z = sigmoid(affine("to_gate"))
            h = (1 - z) * h + z * new
        else:
            f, i = sigmoid(affine("to_forget")), sigmoid(affine("to_input"))
            h = f / (f + i) * h + i / (f + i) * new
        expected.append(p["to_out.weight"] @ h)
    found, _ = layer.apply(F, p, x[None])
    assert np.allclose(found[0], expected, rtol=1e-10, atol=1e-12)
