"""The recorded decoder: the plain path's logits and states, whatever the model, the batch and the threads."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import helix_core
from helix_core.errors import ComponentUnavailable, ConfigError, UsageError
from helix_core.events import subscribe
from helix_core.kinds.layer import Layer, LayerConfig
from helix_core.plugin_system import components
from helix_core.tree import tree_items, tree_map
from helix_plugin_cpu.decode.decoder import RecordedDecoder
from helix_plugin_cpu.decode.lower import LOWER
from helix_plugin_cpu.decode.weights import as_float32, store_weight
from helix_plugin_cpu.kernels._instructions import REDUCE, pack
from helix_plugin_lm.generation import Sampling, Stopping, generate_batch
from helix_plugin_lm.models import LanguageModel, ModelConfig

BACKEND = helix_core.create("backend", "cpu")
F = BACKEND.bind(mode="infer")
RECURRENT = sorted(c.full_name for c in components("layer") if "recurrent" in c.descriptor.provides)


def model_of(mixer="mamba", options=(), **config):
    config = {"vocab_size": 37, "d_model": 24, "n_layers": 2} | config
    return LanguageModel(ModelConfig(mixer={"name": mixer} | dict(options), **config))


def params_of(model, seed=0):
    rng = np.random.default_rng(seed)
    # Not the initial values, many of which are equal or zero.
    return {
        name: torch.from_numpy((a + 0.05 * rng.normal(size=a.shape)).astype(np.float32))
        for name, a in model.init(seed).items()
    }


def plain_steps(model, params, tokens, state=None):
    """Logits (T, B, V) and the state after tokens (T, B)."""
    state = model.init_state(F, tokens.shape[1]) if state is None else state
    logits = []
    with torch.no_grad():
        for row in tokens:
            y, state = model.apply(F, params, torch.from_numpy(row)[:, None], state=state)
            logits.append(y[:, 0].numpy())
    return np.stack(logits), state


def distance(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


def state_distance(got, expected):
    got, expected = dict(tree_items(got)), dict(tree_items(expected))
    assert got.keys() == expected.keys()
    return max(
        float((got[k] - expected[k]).abs().max() / expected[k].abs().max().clamp(min=1)) for k in got if got[k].numel()
    )


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_steps_are_those_of_the_plain_path(data):
    batch = data.draw(st.integers(1, 8))
    mixer, width = data.draw(st.sampled_from(RECURRENT)), data.draw(st.sampled_from([8, 16, 24, 40, 64]))
    try:
        helix_core.create("layer", mixer, d_model=width)
    except ConfigError:
        width = 64  # widths that its heads divide
    model = model_of(
        mixer,
        d_model=width,
        vocab_size=data.draw(st.integers(2, 70)),
        n_layers=data.draw(st.integers(1, 3)),
        norm=data.draw(st.sampled_from(["rms_norm", "layer_norm"])),
        tie_embeddings=data.draw(st.booleans()),
    )
    params = params_of(model)
    tokens = np.random.default_rng(batch).integers(model.config.vocab_size, size=(4, batch))
    expected, after = plain_steps(model, params, tokens)
    decoder = RecordedDecoder(model, BACKEND, F, params, batch, "float32")
    got = np.stack([decoder.step(row) for row in tokens])
    # A layer's norm of small numbers, as retnet's, enlarges what rounding left.
    assert distance(got, expected) < 1e-4
    assert state_distance(decoder.state(), after) < 1e-4


@pytest.mark.parametrize(
    "options",
    [{"d_state": 1}, {"d_state": 17, "d_conv": 1}, {"d_state": 40, "expand": 3, "dt_rank": 5}],
    ids=["N1", "N17", "N40"],
)
def test_ragged_mamba(options):
    model = model_of(options=options.items(), d_model=23)
    params = params_of(model)
    tokens = np.random.default_rng(1).integers(37, size=(3, 3))
    expected, after = plain_steps(model, params, tokens)
    decoder = BACKEND.decoder(model, F, params, batch=3)
    assert isinstance(decoder, RecordedDecoder)
    assert not decoder.python_calls
    assert distance(np.stack([decoder.step(row) for row in tokens]), expected) < 1e-5
    assert state_distance(decoder.state(), after) < 1e-5


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_heads": 4, "n_kv_heads": 2, "window": 5, "gate": True, "qk_norm": True},
        {"n_heads": 3, "head_dim": 7, "n_kv_heads": 1, "max_length": 40, "rope": False},
        {"n_heads": 1, "head_dim": 80, "max_length": 24, "rope_fraction": 0.5},
        {"n_heads": 2, "window": 1},
    ],
)
def test_attention_reads_the_filled_part_of_its_cache(options, batch):
    """24 steps: past the end of a window, whose slots are used again, and to that of the cache."""
    model = model_of("attention", options, d_model=32, n_layers=2, vocab_size=20)
    params = params_of(model)
    tokens = np.random.default_rng(batch).integers(20, size=(24, batch))
    expected, after = plain_steps(model, params, tokens)
    decoder = RecordedDecoder(model, BACKEND, F, params, batch, "float32")
    assert "attention" not in decoder.python_calls
    assert distance(np.stack([decoder.step(row) for row in tokens]), expected) < 1e-5
    assert state_distance(decoder.state(), after) < 1e-5


def test_attention_goes_on_from_a_prompt_and_passes_nan_on():
    model = model_of("attention", {"n_heads": 4, "window": 6}, d_model=32, n_layers=1, vocab_size=20)
    params = params_of(model)
    tokens = torch.arange(20).reshape(2, 10) % 19
    with torch.no_grad():
        _, state = model.apply(F, params, tokens, state=model.init_state(F, 2))
        expected, _ = model.apply(F, params, tokens[:, :1], state=state)
    decoder = RecordedDecoder(model, BACKEND, F, params, 2, "float32")
    decoder.load(state)
    assert distance(decoder.step(tokens[:, 0].numpy()), expected[:, 0].numpy()) < 1e-5
    dict(tree_items(state))["blocks.0.mixer.keys"][1, 2] = torch.nan
    decoder.load(state)
    logits = decoder.step(tokens[:, 0].numpy())
    assert np.isfinite(logits[0]).all()
    assert np.isnan(logits[1]).all()


def test_a_prompt_hands_over():
    model, rng = model_of(), np.random.default_rng()
    params = params_of(model)
    prompt, tokens = rng.integers(37, size=(2, 9)), rng.integers(37, size=(3, 2))
    with torch.no_grad():
        _, state = model.apply(F, params, torch.from_numpy(prompt), state=model.init_state(F, 2))
    kept = tree_map(torch.clone, state)
    expected, after = plain_steps(model, params, tokens, state)
    decoder = BACKEND.decoder(model, F, params, batch=2)
    decoder.step(tokens[0])
    decoder.load(state)
    assert distance(np.stack([decoder.step(row) for row in tokens]), expected) < 1e-5
    assert state_distance(decoder.state(), after) < 1e-5
    assert state_distance(state, kept) == 0, "the caller's state was written to"


def test_greedy_generation_gives_the_plain_path_s_bytes():
    model = model_of(vocab_size=256, d_model=32)
    params = params_of(model)
    stopping = Stopping(max_tokens=40)
    (written,) = generate_batch(model, BACKEND, F, params, [b"def"], sampling=Sampling(0), stopping=stopping)
    state, logits, expected = model.init_state(F, 1), None, []
    with torch.no_grad():
        logits, state = model.apply(F, params, torch.tensor([[0, *b"def"]]), state=state)
        for _ in range(40):
            expected.append(int(logits[0, -1].argmax()))
            logits, state = model.apply(F, params, torch.tensor([[expected[-1]]]), state=state)
    assert written.tokens == tuple(expected)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_threads_make_no_difference(threads, weights):
    model = model_of(d_model=256, vocab_size=600)
    params = params_of(model)
    tokens = np.random.default_rng(2).integers(600, size=(5, 3))
    results = []
    for count in (1, 2, 3, 2):
        threads(count)
        decoder = BACKEND.decoder(model, F, params, batch=3, weights=weights)
        results.append(np.stack([decoder.step(row) for row in tokens]))
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_decoders_in_threads():
    model = model_of(d_model=256, vocab_size=600)
    params = params_of(model)
    tokens = np.random.default_rng(3).integers(600, size=(20, 1))

    def run():
        decoder = BACKEND.decoder(model, F, params)
        return np.stack([decoder.step(row) for row in tokens])

    expected, found = run(), []
    workers = [threading.Thread(target=lambda: found.append(run())) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 3
    assert all(np.array_equal(expected, other) for other in found)


def test_nan_reaches_the_logits_and_its_own_row_only():
    for weights in ("float32", "bfloat16", "int8"):
        model = model_of(d_model=128)
        params = params_of(model)
        decoder = BACKEND.decoder(model, F, params, batch=2, weights=weights)
        state = model.init_state(F, 2)
        state["blocks"][0]["mixer"]["ssm"][1, 3, 2] = float("nan")
        decoder.load(state)
        logits = decoder.step(np.array([1, 1]))
        assert np.isfinite(logits[0]).all()
        assert np.isnan(logits[1]).all()


@pytest.mark.parametrize(("weights", "each", "largest"), [("bfloat16", 2**-8, 0.02), ("int8", 2**-7, 0.05)])
def test_smaller_weights_are_as_exact_as_their_format(weights, each, largest):
    rng = np.random.default_rng()
    matrix = torch.from_numpy(rng.normal(size=(45, 200)).astype(np.float32))
    stored = as_float32(store_weight(matrix, weights))
    assert stored.shape == matrix.shape
    bound = each * (matrix.abs() if weights == "bfloat16" else matrix.abs().amax(dim=1, keepdim=True))
    assert ((stored - matrix).abs() <= bound).all()
    model = model_of(d_model=128, n_layers=4)
    params = params_of(model)
    tokens = rng.integers(37, size=(6, 2))
    expected, _ = plain_steps(model, params, tokens)
    decoder = BACKEND.decoder(model, F, params, batch=2, weights=weights)
    assert distance(np.stack([decoder.step(row) for row in tokens]), expected) < largest


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize(("weights", "tolerance"), [("float32", 3e-6), ("bfloat16", 3e-6), ("int8", 0.02)])
def test_products_of_stored_weights(batch, weights, tolerance):
    """Against float64 on the stored numbers: what is left is float32's rounding, and int8's of the activations."""
    from helix_plugin_cpu.decode.lower_ops import linear
    from helix_plugin_cpu.decode.program import Program
    from helix_plugin_cpu.decode.record import Recorder

    rng = np.random.default_rng(batch)
    for N, K in ((1, 1), (5, 130), (16, 128), (33, 200), (100, 257)):
        x, w, b = (torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((batch, 1, K), (N, K), (N,)))
        recorder = Recorder(BACKEND.xp, F, lower=LOWER, batch=batch, weights=weights, in_place=True)
        y = linear(recorder, recorder.array(x), w, b)
        Program(recorder.steps, recorder.scratch, recorder.keep).run()
        stored = as_float32(next(iter(recorder.stored.values()))).double()
        expected = x.double() @ stored.T + b.double()
        assert distance(y.value.numpy(), expected.numpy()) < tolerance, (N, K)


class Counting(Layer[LayerConfig]):
    """What it does depends on the numbers it sees."""

    def param_specs(self):
        return {}

    def init_state(self, F, batch):
        return {"sum": F.zeros(batch, self.config.d_model)}

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y = x * 2 if float(x[0, 0, 0]) > 0 else x
        return y, None if state is None else {"sum": state["sum"] + x[:, -1]}


class Shifting(Counting):
    """Operations without an instruction, views, and a state that is read after it was written."""

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        xp, before = F.xp, state["sum"]
        turned = xp.roll(x, 1, axis=2)
        halves = xp.concat([turned[..., ::2], turned[..., 1::2]], axis=-1)
        mixed = xp.stack([halves, x], axis=-1)
        y = xp.mean(mixed * mixed, axis=-1) - xp.max(x, axis=-1, keepdims=True) + xp.tanh(before)[:, None, :]
        y = xp.where(y > 0, y, 0.1 * y) / (1 + xp.exp(-xp.abs(x))) ** 2
        return y, {"sum": 0.5 * before + xp.sum(mixed, axis=-1)[:, 0]}


def with_layer(kind, **config):
    model = model_of(**config)
    for block in model.blocks:
        block.parts["mixer"] = kind(LayerConfig(d_model=model.config.d_model))
    return model


@pytest.mark.parametrize("batch", [1, 4])
def test_a_layer_without_instructions_of_its_own(batch):
    model = with_layer(Shifting)
    params = params_of(model)
    tokens = np.random.default_rng(4).integers(37, size=(5, batch))
    expected, after = plain_steps(model, params, tokens)
    decoder = RecordedDecoder(model, BACKEND, F, params, batch, "float32")
    assert set(decoder.python_calls) <= {"roll", "where", "greater"}
    assert distance(np.stack([decoder.step(row) for row in tokens]), expected) < 1e-5
    assert state_distance(decoder.state(), after) < 1e-5


def test_a_model_that_cannot_be_recorded_is_decoded_plainly():
    model, events = with_layer(Counting), []
    params = params_of(model)
    tokens = np.random.default_rng(5).integers(37, size=(3, 2))
    with subscribe(events.append):
        decoder = BACKEND.decoder(model, F, params, batch=2)
    told = [event.data for event in events if event.name == "decoder"]
    assert [t["kind"] for t in told] == ["plain"]
    assert "depends on the numbers" in told[0]["reason"]
    assert distance(np.stack([decoder.step(row) for row in tokens]), plain_steps(model, params, tokens)[0]) == 0
    with pytest.raises(ComponentUnavailable, match="int8"):
        BACKEND.decoder(model, F, params, weights="int8")


def test_bad_tokens_are_refused_and_change_nothing():
    model = model_of()
    decoder = BACKEND.decoder(model, F, params_of(model), batch=2)
    before = decoder.state()
    for bad in (np.array([1]), np.array([1.0, 2.0]), np.array([1, 37]), np.array([-1, 0])):
        with pytest.raises(UsageError):
            decoder.step(bad)
    assert state_distance(decoder.state(), before) == 0
    with pytest.raises(ComponentUnavailable, match="int3"):
        BACKEND.decoder(model, F, params_of(model), weights="int3")


def test_other_backends_decode_plainly():
    backend = helix_core.create("backend", "reference")
    model = model_of()
    params, table = model.init(0), backend.bind(mode="infer")
    decoder = backend.decoder(model, table, params, batch=2)
    expected, _ = model.apply(table, params, np.array([[3], [5]]), state=model.init_state(table, 2))
    assert np.array_equal(decoder.step(np.array([3, 5])), expected[:, 0])
    with pytest.raises(ComponentUnavailable, match="int8"):
        backend.decoder(model, table, params, weights="int8")


def test_an_instruction_has_all_its_fields_and_no_others():
    words = pack(REDUCE, function=3, out_rows=1 << 40, rows=8, step=1, columns=5)
    assert words[0] == REDUCE.code
    assert (words[REDUCE.out_rows], words[REDUCE.columns]) == (1 << 40, 5)
    with pytest.raises(TypeError, match=r"REDUCE has the fields function, .*: see columns, width"):
        pack(REDUCE, function=3, out_rows=0, rows=8, step=1, width=5)
