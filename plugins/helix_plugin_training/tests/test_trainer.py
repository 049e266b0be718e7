"""The trainer's parts: accumulation, clipping, decay groups, evaluation."""

import math
import zlib

import numpy as np
import pytest

from helix_core.errors import NotEnoughMemory, TrainingError
from helix_plugin_training import Trainer, evaluate, gzip_bits_per_byte
from helix_plugin_training.data import Document, load_corpus
from helix_plugin_training.recipes import parse_recipe

RECIPE = """
name = "t"
[model]
d_model = 12
n_layers = 2
mixer = [{ name = "mamba", d_state = 4 }, { name = "s4d", d_state = 4 }]
[training]
steps = 4
batch_size = 2
seq_len = 24
[backend]
name = "cpu"
"""


@pytest.fixture
def corpus(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"document {i}: " + "all work and no play " * (5 + i))
    return load_corpus(str(tmp_path), 0.3)


def trainer(corpus, *overrides):
    return Trainer(parse_recipe(RECIPE, "r.toml", overrides), corpus)


def test_a_step_writes_over_the_arrays_of_the_one_before(corpus):
    here = trainer(corpus)
    given = {name: p.clone() for name, p in here.params.items()}
    first = dict(here.params)
    here.advance(4)
    assert all(p.equal(given[name]) for name, p in first.items()), "what came from elsewhere is not written over"
    places = {name: p.data_ptr() for name, p in here.params.items()}
    here.advance(4)
    assert {name: p.data_ptr() for name, p in here.params.items()} == places


def test_a_step_interrupted_while_it_writes_is_never_saved(corpus, tmp_path, monkeypatch):
    here = trainer(corpus)
    here.advance(4)
    step_donated, left = here.optimizer.step_donated, 3

    def interrupted(*args, **options):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return step_donated(*args, **options)

    monkeypatch.setattr(here.optimizer, "step_donated", interrupted)
    with pytest.raises(KeyboardInterrupt):
        here.advance(4)
    for use in (lambda: here.save(tmp_path / "checkpoints"), lambda: here.advance(4)):
        with pytest.raises(TrainingError, match="step 2 was interrupted while parameters were written"):
            use()
    assert not (tmp_path / "checkpoints").exists()


def test_accumulated_gradients_are_the_mean_over_micro_batches(corpus):
    whole = trainer(corpus, "training.accumulation=3")
    value, grads = whole.gradient(7)
    losses, parts = [], []
    one = trainer(corpus)
    for part in range(3):
        batch = whole.batches(7, part)
        one.batches = lambda step, part, batch=batch: batch
        loss, part_grads = one.gradient(7)
        losses.append(float(loss))
        parts.append(part_grads)
    assert float(value) == pytest.approx(np.mean(losses), rel=1e-6)
    for name, grad in grads.items():
        mean = sum(p[name].double() for p in parts) / 3
        assert float((grad - mean).abs().max()) <= 1e-6 * float(mean.abs().max() + 1e-3)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.d_model=100000000", "parameters on 48 tokens at once needs at least .* TiB of memory"),
        ("training.batch_size=10000000000", "on 240,000,000,000 tokens at once needs at least"),
        ("training.accumulation=10000000000", "a step of 480,000,000,000 tokens needs at least"),
    ],
)
def test_what_can_never_fit_is_refused_before_it_is_tried(corpus, override, words):
    with pytest.raises(NotEnoughMemory, match=words):
        trainer(corpus, override)


@pytest.mark.parametrize("chunk", [1, 7, 24])
def test_chunks_change_the_memory_and_not_the_gradient(corpus, chunk):
    whole, parts = (trainer(corpus, f"training.chunk={c}") for c in (1000, chunk))
    (value, grads), (chunked_value, chunked) = whole.gradient(3), parts.gradient(3)
    assert float(chunked_value) == pytest.approx(float(value), rel=1e-6)
    for name, grad in grads.items():
        assert float((grad - chunked[name]).abs().max()) <= 2e-5 * float(grad.abs().max() + 1e-4), name


def test_a_chunk_knows_of_documents_that_begin_within_it(corpus):
    whole, parts = (
        trainer(corpus, f"training.chunk={c}", "training.seq_len=200", "data.reset=true") for c in (1000, 60)
    )
    batch = whole.batches(0, 0)
    assert batch.reset[:, 61:].any()
    grads, chunked = whole.gradient(0)[1], parts.gradient(0)[1]
    for name, grad in grads.items():
        assert float((grad - chunked[name]).abs().max()) <= 2e-5 * float(grad.abs().max() + 1e-4), name


def test_clipping_bounds_the_step(corpus):
    free, clipped = (trainer(corpus, "optimizer.name=sgd", f"training.clip={c}") for c in (1e9, 1e-3))
    moves = []
    for t in (free, clipped):
        before = {k: v.clone() for k, v in t.params.items()}
        result = t.advance(4)
        moves.append((result, math.sqrt(sum(float(((t.params[k] - before[k]) ** 2).sum()) for k in before))))
    (free_result, free_move), (clip_result, clip_move) = moves
    assert clip_result.grad_norm == pytest.approx(free_result.grad_norm)
    assert clip_move < free_move * 1e-2


def test_norms_biases_and_dynamics_do_not_decay(corpus):
    """A first step of AdamW moves every number by its rate, and by what decays."""
    plain, decaying = (
        trainer(corpus, "optimizer.name=adamw", f"optimizer.weight_decay={rate}") for rate in (0.0, 10.0)
    )
    before = dict(plain.params)
    rate = plain.advance(4).lr
    decaying.advance(4)
    decayed = {name for name, p in plain.params.items() if not p.equal(decaying.params[name])}
    assert "blocks.0.mixer.in_proj.weight" in decayed
    kept = {"norm.weight", "blocks.0.mixer.A_log", "blocks.0.mixer.dt_proj.bias", "blocks.1.mixer.log_dt"}
    assert not decayed & kept
    for name in kept:
        share = 0.25 if name == "blocks.1.mixer.log_dt" else 1.0
        moved = float((plain.params[name] - before[name]).abs().max())
        assert moved == pytest.approx(share * rate, rel=0.05), name


def test_resets_at_document_starts_change_what_is_learned(corpus):
    plain, reset = trainer(corpus), trainer(corpus, "data.reset=true")
    losses = [[t.advance(4).loss for _ in range(4)] for t in (plain, reset)]
    assert losses[0] != losses[1]
    assert all(math.isfinite(x) for x in losses[1])


def test_a_duration_is_measured_without_training(corpus, monkeypatch):
    """The lower quartile, without the first two steps."""
    t = trainer(corpus)
    before = {k: v.clone() for k, v in t.params.items()}
    seconds = (1.0, 1.0, 70.0, 50.0, 60.0, 50.0, 50.0, 80.0, 90.0, 60.0)
    times = iter([time for i, step in enumerate(seconds) for time in (1000.0 * i, 1000.0 * i + step)])
    with monkeypatch.context() as clock:
        clock.setattr("time.perf_counter", lambda: next(times))
        assert t.measure_step() == 50.0
    assert t.step == 0
    assert all(bool((t.params[k] == before[k]).all()) for k in before)


def test_evaluation_codes_every_byte_of_every_document_once(corpus):
    """Against one document at a time, one byte at a time."""
    t = trainer(corpus)
    found = evaluate(t.model, t.backend, t.F_infer, t.params, corpus.validation)
    assert found.bytes == corpus.validation_bytes
    nats = 0.0
    with t.backend.inference():
        for document in corpus.validation:
            state, previous = t.model.init_state(t.F_infer, 1), 0
            for byte in document.data.tolist():
                logits, state = t.model.apply(
                    t.F_infer, t.params, t.backend.asarray(np.array([[previous]])), state=state
                )
                p = logits[0, 0].double().softmax(-1)
                nats -= math.log(float(p[byte]))
                previous = byte
    assert found.bits == pytest.approx(nats / math.log(2), rel=1e-5)


def test_evaluation_in_chunks_and_ragged_rows_is_the_same(corpus, monkeypatch):
    import helix_plugin_training.evaluation.text as module

    t = trainer(corpus)
    whole = evaluate(t.model, t.backend, t.F_infer, t.params, corpus.validation + corpus.train)
    monkeypatch.setattr(module, "CHUNK", 17)
    monkeypatch.setattr(module, "ROWS", 3)
    again = evaluate(t.model, t.backend, t.F_infer, t.params, corpus.validation + corpus.train)
    assert again.bits == pytest.approx(whole.bits, rel=1e-5)


def test_gzip_is_gzips():
    data = np.frombuffer(b"abc" * 1000, np.uint8)
    expected = len(zlib.compress(data.tobytes(), 9)) + 12  # gzip's frame is 18 bytes, zlib's 6
    assert gzip_bits_per_byte([Document("d", data)]) == pytest.approx(8 * expected / 3000)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_step_learns_the_same(corpus):
    # Mamba alone: torch's compiler has no code for the complex numbers of S4D's FFT.
    mamba = "model.mixer={ name = 'mamba', d_state = 4 }"
    eager, compiled = trainer(corpus, mamba), trainer(corpus, mamba, "backend.compile=true")
    for _ in range(3):
        assert compiled.advance(4).loss == pytest.approx(eager.advance(4).loss, rel=1e-4)
