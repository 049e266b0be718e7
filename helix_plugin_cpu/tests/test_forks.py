"""Kernels and decoders in a forked child, whose threads are not those of its parent.

The parent is a process of its own: what else this test run has loaded (JAX) must not be forked.
"""

import multiprocessing
import os
import signal
import warnings

import numpy as np
import pytest
import torch

import helix_core
from helix_plugin_cpu.kernels import table
from helix_plugin_lm.models import LanguageModel, ModelConfig

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
RNG = np.random.default_rng(5)


def normal(*shape):
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


# Each returns what computes, made before the fork: torch's own OpenMP regions may hang in a forked child.
def scan():
    u, delta, z, B, C = (normal(2, 128, n) for n in (96, 96, 96, 16, 16))
    arrays = (u, delta, -normal(96, 16).abs(), B, C, normal(96), z, normal(96), None, None, None)

    def run():
        outputs, saved = table.selective_scan.forward_train(*arrays, delta_softplus=True)
        return [*outputs, *table.selective_scan.backward(outputs, arrays, saved, delta_softplus=True)]

    return run


def conv():
    arrays = (normal(2, 256, 96), normal(96, 4), normal(96), None, None, None)

    def run():
        outputs, saved = table.causal_conv1d.forward_train(*arrays, activation="silu")
        return [*outputs, *table.causal_conv1d.backward(outputs, arrays, saved, activation="silu")]

    return run


def decoder():
    backend = helix_core.create("backend", "cpu")
    model = LanguageModel(ModelConfig(vocab_size=600, d_model=256, n_layers=2, mixer={"name": "mamba"}))
    params = {name: torch.from_numpy(a) for name, a in model.init(0).items()}
    decoders = [backend.decoder(model, backend.bind(mode="infer"), params) for _ in range(2)]
    tokens = RNG.integers(600, size=(20, 1))
    return lambda: [torch.from_numpy(np.stack([made.step(row) for row in tokens])) for made in [decoders.pop()]]


def parent(make):
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*multi-threaded.*fork.*", DeprecationWarning)  # the case under test
    torch.set_num_threads(2)
    run = make()
    expected = [a.numpy() for a in run() if a is not None]
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        found = [a.numpy() for a in run() if a is not None]
        same = len(found) == len(expected) and all(map(np.array_equal, found, expected))
        os._exit(0 if same else 3)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.mark.parametrize("make", [scan, conv, decoder])
def test_a_forked_child_computes_what_its_parent_did(make):
    """With as many threads, which is more than a DataLoader's workers ask for."""
    process = multiprocessing.get_context("spawn").Process(target=parent, args=(make,), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode == 0
