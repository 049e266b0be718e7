"""torch's transforms of every op: what the kernels give equals what torch makes of the references."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from helix_core import create
from helix_core.errors import UsageError
from helix_core.ops import OPS

pytestmark = [
    # torch's own, at the first use of its forward mode and of its compiler.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]
SAMPLES = 3


@pytest.fixture(scope="module")
def cpu():
    return create("backend", "cpu")


@pytest.fixture(scope="module")
def bound(cpu):
    return cpu.bind(mode="train")


class Case:
    """An op on one sample: `ours` and `theirs` take its floating arrays alone and return a tuple."""

    def __init__(self, name, cpu, bound, rng):
        self.name, op = name, OPS[name]
        # Of the samples with the most optional arrays, the smallest.
        sample = min(op.samples(rng), key=lambda s: (-len(s.arrays), sum(np.size(a) for a in s.arrays.values())))
        arrays = {n: torch.from_numpy(np.asarray(a)) for n, a in sample.arrays.items()}
        arrays = {n: a.float() if a.is_floating_point() else a for n, a in arrays.items()}
        floating = [n for n, a in arrays.items() if a.is_floating_point()]
        self.values = tuple(arrays[n] for n in floating)
        self.tangents = tuple(torch.from_numpy(rng.normal(size=v.shape).astype("float32")) for v in self.values)
        self.several = tuple(torch.stack([v, 0.9 * v, 1.1 * v]) for v in self.values)
        self.all = tuple(range(len(floating)))

        def calling(function):
            def call(*values):
                given = {**arrays, **dict(zip(floating, values, strict=True))}
                found = function(*(given.get(n) for n in op.arrays), **sample.attrs)
                return found if isinstance(found, tuple) else (found,)

            return call

        self.ours = calling(getattr(bound, name))
        self.theirs = calling(lambda *arrays, **attrs: op.reference(cpu.xp, *arrays, **attrs))

    def gradient(self, function):
        """Of the sum of the squares of the outputs: it depends on the values through the slopes, too."""
        return torch.func.grad(lambda *values: sum((y * y).sum() for y in function(*values)), self.all)

    def one_by_one(self, function):
        found = [function(*(s[i] for s in self.several)) for i in range(SAMPLES)]
        return tuple(torch.stack(values) for values in zip(*found, strict=True))


@pytest.fixture(params=OPS)
def case(request, cpu, bound, rng):
    return Case(request.param, cpu, bound, rng)


def close(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        largest = float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3 * largest + 1e-6)


def test_forward_mode(case):
    _, expected = torch.func.jvp(case.theirs, case.values, case.tangents)
    close(torch.func.jvp(case.ours, case.values, case.tangents)[1], expected)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(v, t) for v, t in zip(case.values, case.tangents, strict=True)]
        found = [forward_ad.unpack_dual(y).tangent for y in case.ours(*duals)]
        close([torch.zeros_like(e) if t is None else t for t, e in zip(found, expected, strict=True)], expected)


def test_forward_over_reverse_mode(case):
    _, expected = torch.func.jvp(case.gradient(case.theirs), case.values, case.tangents)
    close(torch.func.jvp(case.gradient(case.ours), case.values, case.tangents)[1], expected)


def test_gradients_of_gradients(case):
    expected = case.gradient(case.gradient(case.theirs))(*case.values)
    close(case.gradient(case.gradient(case.ours))(*case.values), expected)
    if case.name == "attention":  # torch's own kernel then, which says that it has none: see below
        return
    leaves = [v.clone().requires_grad_() for v in case.values]
    total = sum((y * y).sum() for y in case.ours(*leaves))
    first = torch.autograd.grad(total, leaves, create_graph=True, materialize_grads=True)
    again = torch.autograd.grad(sum((g * g).sum() for g in first), leaves, materialize_grads=True)
    close(again, expected)


def test_what_torch_refuses_stays_an_error(bound, rng):
    q, k, v = (torch.from_numpy(rng.normal(size=(1, 5, 2, 8))).float().requires_grad_() for _ in range(3))
    y, *_ = bound.attention(q, k, v)
    (dq,) = torch.autograd.grad(y.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative for .*scaled_dot_product.* is not implemented"):
        dq.sum().backward()


def test_gradients_of_each_sample(case):
    expected = case.one_by_one(case.gradient(case.theirs))
    close(torch.func.vmap(case.gradient(case.ours))(*case.several), expected)
    all_at_once = case.gradient(lambda *values: torch.func.vmap(case.ours)(*values))(*case.several)
    close(all_at_once, expected)
    outputs = torch.func.vmap(case.ours)(*case.several)
    close(outputs, case.one_by_one(case.theirs))


def test_forward_mode_in_half_precision_keeps_wide_sums(cpu, rng):
    F = cpu.bind(dtype="bfloat16", mode="train")
    assert F.trail["rms_norm"].chosen == "cpu/rms_norm"
    x, t = (torch.from_numpy(rng.normal(size=(3, 700))).bfloat16() for _ in range(2))
    weight = torch.ones(700)
    y, slope = torch.func.jvp(lambda x: F.rms_norm(x, weight), (x,), (t,))
    exact = torch.func.jvp(lambda x: OPS["rms_norm"].reference(cpu.xp, x, weight), (x.float(),), (t.float(),))
    assert y.dtype == slope.dtype == torch.bfloat16
    torch.testing.assert_close(slope.float(), exact[1], rtol=2e-2, atol=2e-2)


def test_a_batch_of_gradients_is_refused_with_the_way_to_get_it(bound):
    x = torch.ones(2, 4, requires_grad=True)
    y = bound.rms_norm(x, torch.ones(4))
    with pytest.raises(UsageError, match=r"rms_norm takes one gradient at a time.*\n.*jacrev"):
        torch.autograd.grad(y, x, torch.ones(3, 2, 4), is_grads_batched=True)
    assert torch.func.jacrev(lambda x: bound.rms_norm(x, torch.ones(4)))(x.detach()).shape == (2, 4, 2, 4)


@pytest.mark.parametrize("what", ["jvp", "grad", "vmap"])
def test_transforms_within_a_compiled_function(bound, what, rng):
    x = torch.from_numpy(rng.normal(size=(2, 3, 8))).float()
    weight = torch.linspace(0.5, 1.5, 8)
    function = {
        "jvp": lambda x: torch.func.jvp(lambda x: bound.rms_norm(x, weight), (x,), (x.cos(),))[1],
        "grad": torch.func.grad(lambda x: bound.rms_norm(x, weight=weight).square().sum(dim=-1).cos().sum()),
        "vmap": torch.func.vmap(lambda x: bound.rms_norm(x, weight)),
    }[what]
    torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(x), function(x))


@pytest.mark.parametrize("layer", ["mamba", "hyena", "retnet", "attention", "moe"])
def test_stacked_parameters_of_a_layer(cpu, layer, rng):
    options = {"hyena": {"l_max": 16}, "attention": {"n_heads": 2}, "retnet": {"n_heads": 2}}.get(layer, {})
    modules = [cpu.module(create("layer", layer, d_model=16, **options), seed=seed) for seed in range(2)]
    params = [{name: p.detach() for name, p in module.named_parameters()} for module in modules]
    stacked = {name: torch.stack([p[name] for p in params]) for name in params[0]}
    x = torch.from_numpy(rng.normal(size=(2, 7, 16))).float()

    def apply(params, x):
        return torch.func.functional_call(modules[0], params, (x,))

    with torch.no_grad():
        expected = torch.stack([module(x) for module in modules])
    torch.testing.assert_close(torch.func.vmap(apply, in_dims=(0, None))(stacked, x), expected, rtol=1e-3, atol=1e-4)
    gradient = torch.func.grad(lambda params, x: apply(params, x[None]).square().sum())
    each = torch.func.vmap(gradient, in_dims=(None, 0))(params[0], x)
    for i, row in enumerate(x):
        module = modules[0]
        module.zero_grad()
        module(row[None]).square().sum().backward()
        for name, p in module.named_parameters():
            plain = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(each[name][i], plain, rtol=1e-3, atol=1e-4)
