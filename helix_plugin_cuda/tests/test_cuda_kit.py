"""The kernel kit: ragged, degenerate and extreme inputs in every dtype, and gradients.

The samples that ops have themselves are run by the backend's kit (`test_cuda_backend`), whose ops are these kernels.
Here only the quick kernels see them too.
"""

import numpy as np
import pytest

from helix_core.ops import Sample
from helix_core.ops.ternary import pack_ternary
from helix_plugin_cuda.kernels import long_conv
from helix_testing import BaseKernelTests


class OwnSamples(BaseKernelTests):
    """The kit on inputs that this file adds, without those of the op."""

    def _samples(self, rng):
        return list(self.samples(rng))


class TestRMSNorm(BaseKernelTests):
    kernel, op, backend = "cuda/rms_norm", "rms_norm", "cuda"

    def samples(self, rng):
        for shape in ((37, 192), (3, 7, 31), (1, 1, 257), (0, 8), (13, 16), (2, 1025)):
            yield Sample({"x": rng.normal(size=shape), "weight": rng.normal(size=shape[-1])}, label=f"{shape}")


class TestAddRMSNorm(BaseKernelTests):
    kernel, op, backend = "cuda/add_rms_norm", "add_rms_norm", "cuda"

    def samples(self, rng):
        for shape in ((37, 192), (1, 1, 257), (0, 8)):
            arrays = {name: rng.normal(size=shape) for name in ("x", "residual")}
            yield Sample({**arrays, "weight": rng.normal(size=shape[-1])}, label=f"{shape}")


class TestSwiGLU(BaseKernelTests):
    kernel, op, backend = "cuda/swiglu", "swiglu", "cuda"

    def samples(self, rng):
        for shape in ((1025,), (3, 700), (0, 4)):
            yield Sample({name: rng.normal(size=shape) for name in ("gate", "x")}, label=f"{shape}")


class TestBitLinear(BaseKernelTests):
    kernel, op, backend = "cuda/bit_linear", "bit_linear", "cuda"

    def samples(self, rng):
        for rows, columns, outputs in ((0, 8, 3), (1, 600, 17), (5, 257, 65), (33, 70, 9)):
            packed, scale = pack_ternary(rng.normal(size=(outputs, columns)))
            x = rng.integers(-60, 61, size=(rows, columns)) * 1.0
            x[:, 0] = 127
            arrays = {"x": x, "packed": packed, "scale": scale, "bias": rng.normal(size=outputs)}
            yield Sample(arrays, label=f"{(rows, columns, outputs)}")

    def test_rows_that_are_not_finite_stay_alone(self, backend_instance, rng):
        x, (packed, scale) = rng.normal(size=(3, 70)), pack_ternary(rng.normal(size=(9, 70)))
        x[1, 4], x[2, 69] = np.nan, -np.inf
        arrays = (backend_instance.asarray(a, "float32") for a in (x, packed, scale))
        y = backend_instance.to_numpy(backend_instance.bind(mode="infer").bit_linear(*arrays))
        assert np.isnan(y[1:]).all()
        assert np.isfinite(y[0]).all()


class TestCrossEntropy(BaseKernelTests):
    kernel, op, backend = "cuda/cross_entropy", "cross_entropy", "cuda"

    def samples(self, rng):
        for rows, V in ((5, 1000), (2, 20000), (0, 5)):
            logits, targets = rng.normal(size=(rows, V)) * 5, rng.integers(V, size=rows)
            yield Sample({"logits": logits, "targets": targets}, label=f"{rows} of {V}")
        low = np.full((3, 9), -1e30)
        low[np.arange(3), [0, 4, 8]] = 2.0
        yield Sample({"logits": low, "targets": np.array([0, 4, 8])}, label="one class has it all")


class TestLinearCrossEntropy(BaseKernelTests):
    kernel, op, backend = "cuda/linear_cross_entropy", "linear_cross_entropy", "cuda"

    def samples(self, rng):
        for shape, D, V in (((130,), 40, 300), ((2, 65), 3, 129), ((0,), 4, 5)):
            arrays = {"x": rng.normal(size=(*shape, D)), "weight": rng.normal(size=(V, D))}
            yield Sample(arrays | {"targets": rng.integers(V, size=shape)}, label=f"{shape}, {D} to {V}")


@pytest.mark.slow
class TestLinearScan(OwnSamples):
    kernel, op, backend = "cuda/linear_scan", "linear_scan", "cuda"

    def samples(self, rng):
        for B, L, D in ((1, 70, 3), (2, 33, 17), (1, 0, 4)):
            arrays = {"a": rng.uniform(-1, 1, size=(B, L, D)), "x": rng.normal(size=(B, L, D))}
            arrays |= {"initial_state": rng.normal(size=(B, D)), "reset": rng.random((B, L)) < 0.1}
            yield Sample(arrays, label=f"{(B, L, D)}")


@pytest.mark.slow
class TestCausalConv1d(OwnSamples):
    kernel, op, backend = "cuda/causal_conv1d", "causal_conv1d", "cuda"

    def samples(self, rng):
        for B, L, D, K in ((2, 70, 130, 4), (3, 3, 7, 7), (1, 40, 3, 2), (2, 0, 3, 4)):
            arrays = {"x": rng.normal(size=(B, L, D)), "weight": rng.normal(size=(D, K)), "bias": rng.normal(size=D)}
            arrays |= {"initial_state": rng.normal(size=(B, K - 1, D)), "reset": rng.random((B, L)) < 0.15}
            arrays |= {"lengths": rng.integers(L + 1, size=B)}
            yield Sample(arrays, {"activation": "silu"}, f"{(B, L, D, K)}")


@pytest.mark.slow
class TestDiagonalSSM(OwnSamples):
    kernel, op, backend = "cuda/diagonal_ssm", "diagonal_ssm", "cuda"

    def samples(self, rng):
        for B, L, D, N in ((1, 70, 3, 2), (2, 37, 17, 5), (2, 0, 3, 4)):
            angle = rng.uniform(0, 3, size=(D, N))
            arrays = {"u": rng.normal(size=(B, L, D)), "c": rng.normal(size=(D, N, 2))}
            arrays |= {"log_a": np.stack([-rng.uniform(0.01, 1, size=(D, N)), angle], axis=-1)}
            arrays |= {"initial_state": rng.normal(size=(B, D, N, 2)), "reset": rng.random((B, L)) < 0.05}
            arrays |= {"lengths": rng.integers(L + 1, size=B)}
            yield Sample(arrays, label=f"{(B, L, D, N)}")


@pytest.mark.slow
class TestRWKV7(OwnSamples):
    kernel, op, backend = "cuda/rwkv7", "rwkv7", "cuda"

    def samples(self, rng):
        B, L, H, K = 1, 35, 1, 6
        names = ("r", "k", "v", "a", "b")
        arrays = {name: rng.normal(size=(B, L, H, K)) for name in names}
        arrays["a"] /= 2 * np.linalg.norm(arrays["a"], axis=-1, keepdims=True)
        yield Sample({**arrays, "log_decay": -20 * rng.random((B, L, H, K))}, label="decays too large for quotients")
        yield Sample({**{n: a[:, :0] for n, a in arrays.items()}, "log_decay": np.zeros((B, 0, H, K))}, label="no step")


@pytest.mark.slow
class TestWKV4(OwnSamples):
    kernel, op, backend = "cuda/wkv4", "wkv4", "cuda"

    def samples(self, rng):
        for B, L, D in ((1, 70, 3), (2, 33, 17), (2, 0, 3)):
            arrays = {"k": 5 * rng.normal(size=(B, L, D)), "v": rng.normal(size=(B, L, D)), "bonus": rng.normal(size=D)}
            arrays |= {"log_decay": -np.exp(rng.uniform(-6, 1, size=D)), "initial_state": rng.normal(size=(B, 2, D))}
            arrays |= {"reset": rng.random((B, L)) < 0.05, "lengths": rng.integers(L + 1, size=B)}
            yield Sample(arrays, label=f"{(B, L, D)}")


@pytest.mark.slow
class TestLongConvOnTensorCores(BaseKernelTests):
    kernel, op, backend = "cuda/long_conv", "long_conv", "cuda"

    @pytest.fixture(autouse=True)
    def always(self, monkeypatch):
        monkeypatch.setattr(long_conv, "chosen", lambda kernel, shapes, ways, run: ways[-1])

    def samples(self, rng):
        B, L, D = 2, 260, 2
        arrays = {name: rng.normal(size=(B, L, D)) for name in ("u", "pre", "post")}
        arrays |= {"filter": rng.normal(size=(L, D)), "lengths": np.array([1, 250])}
        yield Sample(arrays, label="sides 32")
        yield Sample({"u": rng.normal(size=(1, 250, 1)), "filter": rng.normal(size=(9, 1))}, label="few taps")
