"""The Metal kernels' sources, compiled as C++ and run thread by thread: their logic is tested, not a GPU.

Metal itself is not here; what stands in for it is below. Threads of a SIMD group run from the last to the first, so
that the first one, which writes, gets the whole sum.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import mlx.core as mx
import numpy as np
import pytest

from helix_plugin_metal.kernels import _chunked_scan as chunked_scan
from helix_plugin_metal.kernels import _metal_scan as metal_scan
from helix_plugin_metal.kernels import linear_scan, selective_scan
from helix_plugin_metal.kernels._checked import right_here

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

PROGRAM = """
#include <cmath>
#include <cstddef>
#include <vector>
using std::size_t;
typedef unsigned int uint;
struct Place { uint x, y, z; };
static std::vector<float> sums;
static size_t called;
namespace metal {
inline float exp(float x) { return std::exp(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline float simd_sum(float x) {
    if (called == sums.size()) sums.push_back(0);
    return sums[called++] += x;
}
}
template <%(template)s>
void body(%(parameters)s, const int* %(sized)s_shape, Place thread_position_in_grid, uint thread_index_in_simdgroup) {
    (void)thread_index_in_simdgroup;
    %(source)s
}
extern "C" void run(%(parameters)s, const int* shape) {
    for (int b = 0; b < shape[0]; ++b) {
        for (int first = 0; first < shape[2]; first += 32) {
            sums.clear();
            for (int d = metal::min(first + 32, shape[2]) - 1; d >= first; --d) {
                called = 0;
                body<%(values)s>(%(names)s, shape, Place{uint(d), uint(b), 0}, uint(d - first));
            }
        }
    }
}
"""


@pytest.fixture
def emulated(monkeypatch, tmp_path):
    """`mlx.core.fast.metal_kernel`, as C++ on the processor."""

    def metal_kernel(*, name, input_names, output_names, source):
        def call(*, inputs, template, grid, threadgroup, output_shapes, output_dtypes):
            sized = 1 if "x_shape" in source else 0
            assert grid == (inputs[sized].shape[2], inputs[sized].shape[0], 1)
            assert threadgroup[0] % 32 == 0
            assert set(output_dtypes) == {mx.float32}
            given = [np.ascontiguousarray(np.array(a)) for a in inputs]
            made = [np.full(shape, np.nan, np.float32) for shape in output_shapes]
            kinds = [
                f"const {'bool' if a.dtype == bool else 'float'}* {n}" for a, n in zip(given, input_names, strict=True)
            ]
            kinds += [f"float* {n}" for n in output_names]
            text = PROGRAM % {
                "parameters": ", ".join(kinds),
                "names": ", ".join([*input_names, *output_names]),
                "template": ", ".join(f"{'bool' if isinstance(v, bool) else 'int'} {key}" for key, v in template),
                "values": ", ".join(str(value).lower() for _, value in template),
                "sized": input_names[sized],
                "source": source,
            }
            library = tmp_path / f"{name}-{abs(hash(text))}.so"
            if not library.exists():
                (tmp_path / "k.cpp").write_text(text)
                flags = ["-O1", "-std=c++17", "-Wall", "-Werror", "-shared", "-fPIC"]
                subprocess.run(["g++", *flags, str(tmp_path / "k.cpp"), "-o", str(library)], check=True)
            shape = np.array(inputs[sized].shape, np.int32)
            ctypes.CDLL(str(library)).run(*(ctypes.c_void_p(a.ctypes.data) for a in [*given, *made, shape]))
            return [mx.array(a) for a in made]

        return call

    for module in (metal_scan, linear_scan):
        module._kernel.cache_clear()
    monkeypatch.setattr(mx.fast, "metal_kernel", metal_kernel)
    yield
    for module in (metal_scan, linear_scan):
        module._kernel.cache_clear()


def test_the_kernels_agree_with_the_array_operations(emulated):
    assert selective_scan.kernels_agree()
    assert linear_scan.kernels_agree()


@pytest.mark.parametrize(("shape", "states"), [((1, 1, 1), 1), ((2, 33, 40), 16), ((3, 16, 32), 3)])
def test_shapes(emulated, rng, shape, states):
    batch, length, channels = shape
    random = lambda *size: mx.array(rng.normal(size=size).astype(np.float32))  # noqa: E731
    u, delta, to_y = random(*shape), mx.abs(random(*shape)), random(*shape)
    A, B, C = -mx.abs(random(channels, states)), random(batch, length, states), random(batch, length, states)
    start, to_last = random(batch, channels, states), random(batch, channels, states)
    results = []
    for how in (metal_scan, chunked_scan):
        y, last, starts = how.forward(u, delta, A, B, C, start, None)
        results.append((y, last, *how.backward(u, delta, A, B, C, starts, None, to_y, to_last)))
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert np.abs(np.array(found) - np.array(expected)).max() <= 1e-5 * max(1, np.abs(np.array(expected)).max())


def test_a_wrong_kernel_is_found_out(emulated, monkeypatch):
    monkeypatch.setattr(metal_scan, "FORWARD", metal_scan.FORWARD.replace("sum += h[n]", "sum -= h[n]"))
    assert not selective_scan.kernels_agree()


def test_a_gpu_on_which_a_kernel_fails_is_told_of():
    def fail():
        raise RuntimeError("no Metal here")

    with pytest.warns(RuntimeWarning, match="linear_scan failed: no Metal here"):
        assert not right_here("linear_scan", fail)
    with pytest.warns(RuntimeWarning, match="is wrong"):
        assert not right_here("linear_scan", lambda: False)
