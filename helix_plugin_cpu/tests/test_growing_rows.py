"""A transform rounds all outputs by the size of the largest input: rows that grow must not show it."""

import numpy as np
import pytest
import torch

from helix_core.ops import OPS
from helix_core.ops.long_conv import GROWTH
from helix_plugin_cpu.kernels.table import long_conv
from helix_plugin_torch import native

CUT, LENGTH, CHANNELS = 25, 200, 40
TOLERANCE = 8 * GROWTH * np.finfo(np.float32).eps
"""Of earlier outputs: the rounding of inputs GROWTH times as large as theirs."""


def kernel(u, filter, pre=None, post=None):
    return long_conv.forward(u, filter, pre, post, None, None, None)[0]


def native_(u, filter, pre=None, post=None):
    return native.long_conv(u, filter, pre, post)


def compiled(u, filter, pre=None, post=None):
    return torch.compile(native.long_conv, backend="eager", fullgraph=True)(u, filter, pre, post)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("value", [1e4, -1e12, 1e30, np.inf, np.nan])
@pytest.mark.parametrize("convolve", [kernel, native_])
def test_later_inputs_do_not_change_earlier_outputs(rng, convolve, value, gated):
    u, filter, *gates = (rng.normal(size=(2, LENGTH, CHANNELS)) for _ in range(2 + 2 * gated))
    filter = filter[0]
    grown = u.copy()
    grown[:, CUT:] *= value
    grown[0, :3] = 0  # a row may begin with silence
    quiet = np.where(np.arange(LENGTH)[:, None] < CUT, grown, 0.0)
    expected = OPS["long_conv"].reference(np, quiet, filter, *gates)[:, :CUT]
    arrays = (torch.from_numpy(a.astype(np.float32)) for a in (grown, filter, *gates))
    found = convolve(*arrays).numpy()
    assert np.abs(found[:, :CUT] - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert not found[0, :3].any()
    if not np.isfinite(value):
        assert np.isnan(found[:, CUT:]).any()


def test_outputs_behind_a_growth_see_all_of_the_row(rng):
    u, filter = rng.normal(size=(1, LENGTH, CHANNELS)), rng.normal(size=(LENGTH, CHANNELS))
    u[:, CUT:] *= 1e3
    u[:, 2 * CUT :] *= 1e3
    expected = OPS["long_conv"].reference(np, u, filter)
    found = kernel(*(torch.from_numpy(a.astype(np.float32)) for a in (u, filter))).numpy()
    for begin, end in ((0, CUT), (CUT, 2 * CUT), (2 * CUT, LENGTH)):
        part = expected[:, begin:end]
        assert np.abs(found[:, begin:end] - part).max() <= TOLERANCE * np.abs(part).max()


def test_compiled_by_torch_what_is_no_number_reaches_nothing_before_it(rng):
    """And large numbers change earlier outputs by no more than the rounding of a transform."""
    u, filter = rng.normal(size=(2, LENGTH, CHANNELS)), rng.normal(size=(LENGTH, CHANNELS))
    expected = OPS["long_conv"].reference(np, u, filter)[:, :CUT]
    for value in (np.nan, np.inf, 1e6):
        u[:, CUT:] = value
        found = compiled(*(torch.from_numpy(a.astype(np.float32)) for a in (u, filter))).numpy()
        largest = value if np.isfinite(value) else 1.0
        bound = np.finfo(np.float32).eps * largest * np.sqrt(LENGTH) * np.abs(filter).sum(0).max()
        assert np.abs(found[:, :CUT] - expected).max() <= bound
