"""Texts from the recorded decoder: batches, beams and saved states, in constant memory."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import helix_core
from helix_core.tree import tree_items
from helix_plugin_cpu.decode.decoder import RecordedDecoder
from helix_plugin_lm.generation import Sampling, Stopping, beam_search, generate, generate_batch, read_state
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_plugin_lm.tokenizers import BYTES

BACKEND = helix_core.create("backend", "cpu")
F = BACKEND.bind(mode="infer")


@pytest.fixture(scope="module")
def parts():
    model = LanguageModel(ModelConfig(d_model=24, n_layers=2, mixer={"name": "mamba", "d_state": 4}))
    params = {name: torch.from_numpy(a) for name, a in model.init(0).items()}
    params["embedding.weight"] = params["embedding.weight"] * 10
    return model, BACKEND, F, params


def test_rows_are_the_texts_alone(parts):
    prompts = [b"", b"a longer prompt than the others", b"zz", b"x", b"def "]
    stopping, sampling = Stopping(25, tokens=frozenset(range(12))), Sampling(0.9, top_k=50)
    found = list(generate_batch(*parts, prompts, sampling=sampling, stopping=stopping, seeds=3, width=3))
    alone = [
        b"".join(generate(*parts, prompt, sampling=sampling, stopping=stopping, seed=3 + i))
        for i, prompt in enumerate(prompts)
    ]
    assert [row.text for row in found] == alone
    assert len({len(row.tokens) for row in found}) > 1


def test_beams_go_on_from_their_own_states(parts):
    """Scores against the parallel face."""
    for beam in beam_search(*parts, b"ab", num_beams=5, stopping=Stopping(6)):
        with torch.no_grad():
            fed = torch.tensor([[0, *b"ab", *beam.tokens]])
            logs = parts[0].apply(F, parts[3], fed)[0][0, 2:-1].double().log_softmax(-1)
        expected = float(logs[torch.arange(6), torch.tensor(beam.tokens)].sum())
        assert beam.log_probability == pytest.approx(expected, rel=1e-4)


def test_rows_are_reordered(parts):
    model, _, _, params = parts
    decoder = BACKEND.decoder(model, F, params, batch=4)
    assert isinstance(decoder, RecordedDecoder)
    decoder.step(np.array([1, 2, 3, 4]))
    before = dict(tree_items(decoder.state()))
    decoder.reorder([3, 3, 0, 1])
    for name, leaf in tree_items(decoder.state()):
        assert torch.equal(leaf, before[name][[3, 3, 0, 1]])


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_a_saved_state_goes_on_bit_for_bit(parts, tmp_path, weights):
    whole = generate(*parts, b"abc", stopping=Stopping(20), weights=weights)
    expected = b"".join(whole)
    first = generate(*parts, b"abc", stopping=Stopping(9), weights=weights)
    text = b"".join(first)
    first.save().write(tmp_path / "state", "me")
    saved = read_state(tmp_path / "state", "me", parts[0], F, BYTES)
    second = generate(*parts, stopping=Stopping(11), weights=weights, resume=saved)
    assert text + b"".join(second) == expected
    assert np.array_equal(whole.save().logits, second.save().logits)
    for (_, a), (_, b) in zip(tree_items(whole.save().state), tree_items(second.save().state), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_the_text(parts):
    text = generate(*parts, b"a", stopping=Stopping())

    def write(count):
        target = text.tokens + count
        while text.tokens < target:
            next(text)

    def facts():
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return sum(a.nbytes for _, a in tree_items(text.save().state)), sys.getallocatedblocks(), pages

    write(500)
    state, blocks, pages = facts()
    write(4000)
    state_after, blocks_after, pages_after = facts()
    assert state_after == state
    assert blocks_after - blocks < 1000, "a block for every fourth token would be as many"
    # A float for every token of every layer's channels would be 1.5 MB.
    assert (pages_after - pages) * 4096 < 1_000_000
