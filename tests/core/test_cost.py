"""What layers cost: the FLOPs of ops against a count of their references, and what the command prints."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from helix_core.cli.main import cli
from helix_core.kinds.cost import attention_cost
from helix_core.ops import OPS
from helix_core.ops.long_conv import long_conv_flops
from helix_testing.counting import count_reference


def one(*shape):
    return np.full(shape, 0.5)


# One step of every recurrence, by the two sizes whose product is that of the state or of the weight.
STEPS = {
    "linear": lambda a, b: ({"x": one(1, a), "weight": one(b, a)}, {}),
    "linear_cross_entropy": lambda a, b: (
        {"x": one(1, a), "weight": one(b, a), "targets": np.zeros(1, np.int64)},
        {},
    ),
    "causal_conv1d": lambda a, b: ({"x": one(1, 1, a), "weight": one(a, b), "initial_state": one(1, b - 1, a)}, {}),
    "linear_scan": lambda a, b: ({"a": one(a, 1, b), "x": one(a, 1, b), "initial_state": one(a, b)}, {}),
    "selective_scan": lambda a, b: (
        {
            "u": one(1, 1, a),
            "delta": one(1, 1, a),
            "A": one(a, b),
            "B": one(1, 1, b),
            "C": one(1, 1, b),
            "initial_state": one(1, a, b),
        },
        {"delta_softplus": False},
    ),
    "ssd": lambda a, b: (
        {
            "x": one(1, 1, 1, a),
            "dt": one(1, 1, 1),
            "A": -one(1),
            "B": one(1, 1, 1, b),
            "C": one(1, 1, 1, b),
            "initial_state": one(1, 1, b, a),
        },
        {},
    ),
    "gated_linear_attention": lambda a, b: (
        {
            "q": one(1, 1, 1, a),
            "k": one(1, 1, 1, a),
            "v": one(1, 1, 1, b),
            "log_decay": -one(1, 1, 1, a),
            "initial_state": one(1, 1, a, b),
        },
        {"scale": 1.0},
    ),
    "gated_delta_rule": lambda a, b: (
        {
            "q": one(1, 1, 1, a),
            "k": one(1, 1, 1, a),
            "v": one(1, 1, 1, b),
            "log_decay": -one(1, 1, 1),
            "beta": one(1, 1, 1),
            "initial_state": one(1, 1, a, b),
        },
        {"scale": 1.0},
    ),
    "rwkv7": lambda a, b: (
        {
            **{name: one(1, 1, 1, a) for name in ("r", "log_decay", "k", "a", "b")},
            "v": one(1, 1, 1, b),
            "initial_state": one(1, 1, a, b),
        },
        {},
    ),
    "diagonal_ssm": lambda a, b: (
        {"u": one(1, 1, a), "log_a": -one(a, b, 2), "c": one(a, b, 2), "initial_state": one(1, a, b, 2)},
        {},
    ),
}
ONCE = {"diagonal_ssm": 3}
"""What is done once for all steps, per entry: here a's modulus, and its product with a cosine and a sine."""


@pytest.mark.parametrize("name", STEPS)
def test_an_op_counts_what_its_reference_computes(name):
    """The coefficient of the product of both sizes, by a second difference; work on single numbers drops out."""
    op = OPS[name]

    def both(a, b):
        arrays, attrs = STEPS[name](a, b)
        shapes = [arrays[k].shape if k in arrays else None for k in op.arrays]
        return np.array([count_reference(op, arrays, **attrs), op.flops(*shapes, **{**op.attrs, **attrs})])

    counted, said = both(9, 7) - both(9, 4) - both(4, 7) + both(4, 4)
    assert said == counted - 15 * ONCE.get(name, 0)
    assert said > 0


def test_an_elementwise_recurrence_counts_what_its_reference_computes():
    """The difference of two widths, and of two lengths."""
    op = OPS["wkv4"]

    def both(L, D):
        arrays = {"k": one(1, L, D), "v": one(1, L, D), "log_decay": -one(D), "bonus": one(D)}
        state = {"initial_state": one(1, 2, D)}
        return np.array([count_reference(op, arrays | state), op.flops((1, L, D), (1, L, D), (D,), (D,), (1, 2, D))])

    counted, said = both(3, 9) - both(3, 4) - both(1, 9) + both(1, 4)
    assert said == counted > 0


def test_every_op_that_gives_flops_is_counted_here():
    given = {name for name, op in OPS.items() if op.flops and op.reference.__module__.startswith("helix_core.")}
    assert given == {*STEPS, "long_conv", "bit_linear", "wkv4"}, "add one step of the new op to STEPS"


def test_ternary_weights_take_the_operations_of_whole_ones():
    """Unpacking them is not counted."""
    count = OPS["bit_linear"].flops((2, 3, 10), (7, 3), (), None)
    assert count == OPS["linear"].flops((2, 3, 10), (7, 10), None)


def test_a_long_convolution_takes_the_cheaper_way():
    assert long_conv_flops(1, 64, 63) == 2 * 64
    assert long_conv_flops(1, 64) == 2
    n = 2 * 4096
    assert long_conv_flops(4096, 4096) == 5 * n * 13 + 3 * n < 2 * 4096**2


def test_attention_by_hand():
    """Four projections of 8 x 8: scores and sums are 2 * 8 FLOPs each for every token seen."""
    cost = attention_cost(256, 8, 3)
    assert cost.forward_flops == 512 + (1 + 2 + 3) / 3 * 32
    assert cost.step_flops == 512 + 3 * 32
    assert cost.state_bytes == 4 * 2 * 8 * 3
    assert cost.step_bytes == 4 * (256 + 2 * 8 * 3 + 2 * 8)


@pytest.mark.parametrize("backend", ["cpu"])
def test_products_with_weights_as_torch_counts_them(backend):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    import helix_core
    from helix_core.kinds.params import init_params

    layer = helix_core.create("layer", "mamba", d_model=24)
    backend = helix_core.create("backend", backend)
    F = backend.bind()
    p = {k: backend.asarray(v, "float32") for k, v in init_params(layer.param_specs(), 0).items()}
    with FlopCounterMode(display=False) as counter:
        layer.apply(F, p, torch.randn(1, 10, 24))
    convolution = 2 * layer.config.d_inner * layer.config.d_conv
    assert counter.get_total_flops() / 10 == 2 * layer.token_weights() - convolution


def run(*args):
    result = CliRunner().invoke(cli, ["explain", "layer", *args], standalone_mode=False, catch_exceptions=False)
    return result.output


def test_the_command_prints_what_the_layer_says():
    args = ("mamba", "--cost", "--d-model", "32", "--length", "100", "--batch", "2", "--set", "d_state=4")
    facts = json.loads(run(*args, "--json"))
    import helix_core

    cost = helix_core.create("layer", "mamba", d_model=32, d_state=4).cost(100, batch=2)
    assert facts["options"] == {"d_model": 32, "d_state": 4}
    assert facts["layer"]["forward_flops"] == cost.forward_flops
    assert facts["layer"]["step_bytes"] == cost.step_bytes
    assert facts["attention"]["parameters"] == cost.parameters
    assert (facts["length"], facts["batch"]) == (100, 2)
    text = run(*args)
    for words in ("FLOPs per token, all at once", "state of a sequence", "d_model = 32", "100 tokens"):
        assert words in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("mamba", "--cost", "--set", "d_stat=4"), "d_state"),
        (("mamba", "--set", "d_state=4"), "--cost"),
        (("mamba", "--length", "10"), "--cost"),
        (("--cost",), "name"),
        (("mamba", "--cost", "--length", "0"), "range"),
        (("mamba", "--cost", "--set", "d_model=7"), "--d-model"),
    ],
)
def test_what_cannot_be_asked(args, message):
    with pytest.raises(Exception, match=message):
        run(*args)


def test_numbers_are_short():
    from helix_core.cli.cost_table import short

    shown = {0: "0", 999: "999", 1000: "1.00 k", 12345: "12.3 k", 6.63e6: "6.63 M", 2.5e13: "25.0 T"}
    assert {value: short(value) for value in shown} == shown
