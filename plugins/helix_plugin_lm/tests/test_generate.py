"""Texts from a model: streams, batches, beams and saved states agree with each other and with definitions."""

import itertools
import json
import math
import sys
import tracemalloc

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from helix_core.errors import CheckpointError, ConfigError, GenerationError, UsageError
from helix_core.kinds.layer import Layer, LayerConfig
from helix_core.kinds.params import ParamSpec, fan_in
from helix_core.reference.numpy_backend import ReferenceBackend
from helix_core.tree import tree_items
from helix_plugin_lm.generation import Sampling, Stopping, beam_search, generate, generate_batch, read_state
from helix_plugin_lm.generation.row import Row
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_plugin_lm.tokenizers import BYTES, ByteTokenizer, check_vocabulary

BACKEND = ReferenceBackend()
F = BACKEND.bind(mode="infer")


class Decay(Layer):
    """A recurrent layer without a plugin: h = tanh(W x + h / 2)."""

    def param_specs(self):
        return {"weight": ParamSpec((self.config.d_model, self.config.d_model), fan_in())}

    def init_state(self, F, batch):
        return {"h": F.zeros(batch, self.config.d_model)}

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        h = F.zeros(x.shape[0], x.shape[2]) if state is None else state["h"]
        out = []
        for t in range(x.shape[1]):
            h = F.xp.tanh(F.linear(x[:, t], p["weight"]) + 0.5 * h)
            out.append(h)
        return F.xp.stack(out, axis=1), None if state is None else {"h": h}


class Short(Decay):
    context = 12


class Few(ByteTokenizer):
    """The bytes below a number."""

    def __init__(self, size):
        self.vocab_size = size


def build(monkeypatch, layer=Decay, vocab_size=256, seed=0, scale=8.0):
    import helix_core.plugin_system

    def create(kind, name, **options):
        return layer(LayerConfig(**options))

    monkeypatch.setattr(helix_core.plugin_system, "create", create)
    config = ModelConfig(vocab_size=vocab_size, d_model=16, n_layers=2, mixer={"name": "decay"})
    model = LanguageModel(config)
    params = model.init(seed)
    # Logits far enough apart that texts differ from prompt to prompt.
    params["embedding.weight"] = params["embedding.weight"] * np.float32(scale)
    return model, BACKEND, F, params


@pytest.fixture
def parts(monkeypatch):
    return build(monkeypatch)


PROMPTS = [b"", b"a", b"the quick brown fox", b"x" * 40, b"def main(", b"zz", b"\xff\x00"]


def alone(parts, prompt, seed, stopping, sampling=None):
    return b"".join(generate(*parts, prompt, seed=seed, stopping=stopping, sampling=sampling))


@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_a_row_of_a_batch_is_the_text_alone(parts, width):
    stopping = Stopping(max_tokens=30, strings=(b"e", b"qu"), tokens=frozenset(range(20)))
    sampling = Sampling(0.9, top_p=0.95, repetition_penalty=1.2)
    found = list(generate_batch(*parts, PROMPTS, sampling=sampling, stopping=stopping, seeds=5, width=width))
    expected = [alone(parts, prompt, 5 + i, stopping, sampling) for i, prompt in enumerate(PROMPTS)]
    assert [f.text for f in found] == expected
    assert len({len(f.tokens) for f in found}) > 2, "rows should end at different times"


def test_a_text_does_not_depend_on_its_neighbours(parts):
    stopping = Stopping(max_tokens=15)
    first = list(generate_batch(*parts, [b"one", b"two"], stopping=stopping, seeds=[3, 4]))
    other = list(generate_batch(*parts, [b"something else", b"two", b"x"], stopping=stopping, seeds=[9, 4, 1]))
    assert first[1] == other[1]
    assert first[0].tokens != first[1].tokens


def test_an_empty_batch_and_a_bad_one(parts):
    assert list(generate_batch(*parts, [], stopping=Stopping(3))) == []
    with pytest.raises(UsageError, match="seeds"):
        generate_batch(*parts, [b"a"], stopping=Stopping(3), seeds=[1, 2])
    with pytest.raises(UsageError, match="max_tokens"):
        generate_batch(*parts, [b"a"], stopping=Stopping())
    with pytest.raises(UsageError, match="width"):
        generate_batch(*parts, [b"a"], stopping=Stopping(3), width=0)


@pytest.mark.parametrize("limits", [{"max_tokens": 0}, {"max_bytes": 0}])
def test_nothing_is_written_where_nothing_may_be(parts, limits):
    text = generate(*parts, b"a", stopping=Stopping(**limits))
    assert (list(text), text.finish, text.tokens) == ([], "length", 0)
    (row,) = generate_batch(*parts, [b"a"], stopping=Stopping(**limits))
    assert row == type(row)(b"", (), "length")


def test_pieces_never_end_inside_a_character():
    text = "aé€😀" * 3

    row = Row(BYTES, Sampling(0), Stopping(max_bytes=26), np.random.default_rng(0), np.zeros(256, np.int64))
    pieces = []
    for byte in text.encode():
        if row.finish is None:
            pieces.append(row.advance(np.eye(256)[byte]))
    assert all(piece.decode() == piece.decode("utf-8") for piece in pieces)
    # Of the third time, 6 bytes of 10 fit: three characters.
    assert b"".join(pieces).decode() == "aé€😀" * 2 + "aé€"
    assert row.finish == "length"


def test_bytes_that_are_no_utf8_pass():
    row = Row(BYTES, Sampling(0), Stopping(max_tokens=4), np.random.default_rng(0), np.zeros(256, np.int64))
    data = bytes([0xE9, 0x74, 0xFF, 0x41])
    assert b"".join(row.advance(np.eye(256)[byte]) for byte in data) == data


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_saved_state_goes_on_bit_for_bit(parts, tmp_path, cut):
    model = parts[0]
    sampling = Sampling(0.9, repetition_penalty=1.3, frequency_penalty=0.1)
    whole = generate(*parts, b"hello", seed=3, sampling=sampling, stopping=Stopping(20))
    expected = b"".join(whole)
    first = generate(*parts, b"hello", seed=3, sampling=sampling, stopping=Stopping(cut))
    text = b"".join(first)
    first.save().write(tmp_path / "state", "me")
    saved = read_state(tmp_path / "state", "me", model, F, BYTES)
    second = generate(*parts, sampling=sampling, stopping=Stopping(20 - cut), resume=saved)
    assert text + b"".join(second) == expected
    for (_, a), (_, b) in zip(tree_items(whole.save().state), tree_items(second.save().state), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(whole.save().logits, second.save().logits)
    assert np.array_equal(whole.save().counts, second.save().counts)


def test_a_saved_state_goes_on_inside_a_character():
    row = Row(BYTES, Sampling(0), Stopping(2), np.random.default_rng(0), np.zeros(256, np.int64))
    euro = "€".encode()
    assert b"".join(row.advance(np.eye(256)[b]) for b in euro[:2]) == b""
    other = Row(BYTES, Sampling(0), Stopping(1), row.rng, row.counts, row.stream.state())
    assert other.advance(np.eye(256)[euro[2]]) == euro


def test_a_saved_state_reads_on(parts):
    """A long prompt is read once and continued in several ways."""
    first = generate(*parts, b"the beginning", stopping=Stopping(0))
    saved = first.save()
    resumed = generate(*parts, b" and more", resume=saved, seed=4, stopping=Stopping(12))
    assert b"".join(resumed) == alone(parts, b"the beginning and more", 4, Stopping(12))


def test_saving_changes_nothing(parts):
    plain = generate(*parts, b"a", seed=1, stopping=Stopping(10))
    saving = generate(*parts, b"a", seed=1, stopping=Stopping(10))
    pieces = []
    for piece in saving:
        saving.save()
        pieces.append(piece)
    assert b"".join(pieces) == b"".join(plain)


def write_with(path, target, change_arrays=lambda a: a, change_metadata=lambda m: m):
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    save_file(change_arrays(arrays), target, change_metadata(metadata))


def facts(**changes):
    def change(metadata):
        return {**metadata, "facts": json.dumps({**json.loads(metadata["facts"]), **changes})}

    return change


def test_states_that_cannot_be_read_are_refused(parts, tmp_path):
    model, good, bad = parts[0], tmp_path / "good", tmp_path / "bad"
    text = generate(*parts, b"a", stopping=Stopping(3))
    b"".join(text)
    text.save().write(good, "me")

    def refused(match):
        with pytest.raises(CheckpointError, match=match):
            read_state(bad, "me", model, F, BYTES)

    refused("cannot read|No such")
    with pytest.raises(CheckpointError, match="another model"):
        read_state(good, "you", model, F, BYTES)
    data = good.read_bytes()
    rng = np.random.default_rng(0)
    for size in [0, 1, 7, 8, 9, *rng.integers(10, len(data), size=30)]:
        bad.write_bytes(data[:size])
        refused("damaged|not a whole")
    bad.write_bytes((2**62).to_bytes(8, "little") + data[8:])
    refused("damaged|not a whole")
    save_file({"x": np.zeros(3)}, bad)
    refused("not a saved state")
    for change in (
        lambda a: {k: v for k, v in a.items() if k != "logits"},
        lambda a: {**a, "more": np.zeros(1)},
        lambda a: {**a, "state.blocks.0.mixer.h": np.zeros((1, 17), np.float32)},
        lambda a: {**a, "state.blocks.0.mixer.h": np.zeros((1, 16), np.int64)},
        lambda a: {**a, "counts": np.full(256, -1)},
        lambda a: {**a, "counts": np.zeros(256, np.float32)},
    ):
        write_with(good, bad, change_arrays=change)
        refused("damaged")
    for change in (
        lambda m: {**m, "facts": "{"},
        lambda m: {**m, "facts": "[" * 100_000},
        lambda m: {**m, "facts": "[]"},
        lambda m: {k: v for k, v in m.items() if k != "facts"},
        facts(position="3"),
        facts(position=-1),
        facts(rng={"bit_generator": "MT19937"}),
        facts(rng={"bit_generator": "PCG64", "state": {"state": -1, "inc": "x"}}),
        facts(rng=7),
        facts(stream=[[1, 2, 3, 4, 5], 0]),
        facts(stream=[[-4], 0]),
        facts(stream=[["a"], 0]),
        facts(stream=3),
    ):
        write_with(good, bad, change_metadata=change)
        refused("damaged|not valid JSON")
    write_with(good, bad, change_metadata=lambda m: {**m, "version": "9"})
    refused("version 9")


def test_a_state_that_cannot_be_written_leaves_the_old_one(parts, tmp_path):
    text = generate(*parts, b"a", stopping=Stopping(3))
    with pytest.raises(CheckpointError, match="cannot write"):
        text.save().write(tmp_path / "no" / "folder", "me")


def test_a_context_that_is_full(monkeypatch):
    parts = build(monkeypatch, layer=Short)
    with pytest.raises(UsageError, match="13 tokens; this model can take in 12"):
        generate(*parts, b"x" * 12, stopping=Stopping(3))  # and the token in front
    with pytest.raises(UsageError, match="can take in 12"):
        generate_batch(*parts, [b"x", b"x" * 12], stopping=Stopping(3))
    with pytest.raises(UsageError, match="can take in 12"):
        beam_search(*parts, b"x" * 12, num_beams=2, stopping=Stopping(3))
    text = generate(*parts, b"x" * 8, seed=2, stopping=Stopping(100))
    b"".join(text)
    # Nine tokens read, three more fit, and the last step's logits give one that is not read any more.
    assert (text.finish, text.tokens) == ("context full", 4)
    with pytest.raises(GenerationError, match="full"):
        text.save()
    rows = list(generate_batch(*parts, [b"x" * 8, b"x"], stopping=Stopping(100), seeds=2))
    assert [(len(r.tokens), r.finish) for r in rows] == [(4, "context full"), (11, "context full")]
    beams = beam_search(*parts, b"x" * 8, num_beams=2, stopping=Stopping(100))
    assert [(len(b.tokens), b.finish) for b in beams] == [(4, "context full")] * 2
    short = generate(*parts, b"x" * 8, seed=2, stopping=Stopping(4))
    b"".join(short)
    assert short.finish == "length"


def test_logits_that_are_not_finite_are_refused(parts):
    params = {name: np.full_like(a, np.nan) for name, a in parts[3].items()}
    with pytest.raises(GenerationError, match="NaN"):
        next(generate(*parts[:3], params, b"a"))


def log_probability(parts, prompt, tokens):
    """Of a continuation, from the parallel face of the model."""
    model, _, F, params = parts
    whole = np.array([[0, *prompt, *tokens]])
    logits, _ = model.apply(F, params, whole)
    logits = logits[0, len(prompt) : -1].astype(np.float64)
    logs = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    return float(logs[np.arange(len(tokens)), tokens].sum())


@pytest.mark.parametrize("penalty", [-0.5, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_beams_without_limit_are_an_exhaustive_search(monkeypatch, penalty, seed):
    parts = build(monkeypatch, vocab_size=4, seed=seed, scale=20.0)
    length, end, prompt = 4, 3, b"\x01\x02"
    every = {}
    for n in range(1, length + 1):
        for tokens in itertools.product(range(4), repeat=n):
            if end not in tokens[:-1] and (n == length or tokens[-1] == end):
                every[tokens] = log_probability(parts, prompt, tokens) / n**penalty
    expected = sorted(every.items(), key=lambda item: -item[1])
    found = beam_search(
        *parts,
        prompt,
        num_beams=256,
        length_penalty=penalty,
        stopping=Stopping(length, tokens=frozenset({end})),
        tokenizer=Few(4),
    )
    assert [beam.tokens for beam in found] == [tokens for tokens, _ in expected]
    assert np.allclose([beam.score for beam in found], [score for _, score in expected], rtol=1e-4)
    assert found[0].text == bytes(t for t in found[0].tokens if t != end)


def test_few_beams_keep_the_best_at_every_length(monkeypatch):
    """The same search written plainly, without states and without a decoder."""
    parts = build(monkeypatch, vocab_size=6, seed=3, scale=20.0)
    live, prompt = [((), 0.0)], b"\x02"
    for _ in range(5):
        longer = [((*t, token), log_probability(parts, prompt, (*t, token))) for t, _ in live for token in range(6)]
        live = sorted(longer, key=lambda item: -item[1])[:3]
    found = beam_search(*parts, prompt, num_beams=3, length_penalty=0.0, stopping=Stopping(5), tokenizer=Few(6))
    assert [b.tokens for b in found] == [t for t, _ in live]
    assert np.allclose([b.log_probability for b in found], [p for _, p in live], rtol=1e-4)
    again = beam_search(*parts, prompt, num_beams=3, length_penalty=0.0, stopping=Stopping(5), tokenizer=Few(6))
    assert again == found


def test_one_beam_is_greedy(parts):
    (beam,) = beam_search(*parts, b"abc", num_beams=1, stopping=Stopping(10))
    (row,) = generate_batch(*parts, [b"abc"], sampling=Sampling(0), stopping=Stopping(10))
    assert beam.tokens == row.tokens


def test_beams_end_in_front_of_stop_strings(parts):
    free = beam_search(*parts, b"abc", num_beams=4, stopping=Stopping(10))[0]
    string = bytes(free.tokens[2:4])
    for beam in beam_search(*parts, b"abc", num_beams=4, stopping=Stopping(10, strings=(string,))):
        assert string not in beam.text
        assert (beam.finish == "stop string") == (string in bytes(beam.tokens))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 2, "length_penalty": math.inf}, "length_penalty"),
        ({"num_beams": 2, "stopping": Stopping()}, "max_tokens"),
        ({"num_beams": 2, "stopping": Stopping(max_bytes=3)}, "max_tokens"),
    ],
)
def test_beams_refuse_settings_without_meaning(parts, options, match):
    with pytest.raises(UsageError, match=match):
        beam_search(*parts, b"a", **({"stopping": Stopping(3)} | options))


def test_a_decoder_reorders_its_rows(parts):
    model, backend, F, params = parts
    decoder = backend.decoder(model, F, params, batch=3)
    decoder.step(np.array([1, 2, 3]))
    before = [leaf.copy() for _, leaf in tree_items(decoder.state())]
    decoder.reorder([2, 0, 2])
    for old, (_, new) in zip(before, tree_items(decoder.state()), strict=True):
        assert np.array_equal(new, old[[2, 0, 2]])
    for rows in ([0, 1], [0, 1, 3], [-1, 0, 1]):
        with pytest.raises(UsageError, match="rows"):
            decoder.reorder(rows)


def test_memory_does_not_grow_with_the_text(parts):
    text = generate(*parts, b"a", stopping=Stopping())

    def tokens(count):
        target = text.tokens + count
        while text.tokens < target:
            next(text)

    def held():
        return sum(a.nbytes for _, a in tree_items(text.save().state))

    tokens(300)  # caches fill
    state, blocks = held(), sys.getallocatedblocks()
    tracemalloc.start()
    try:
        tokens(50)
        before, _ = tracemalloc.get_traced_memory()
        tokens(2000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held() == state
    assert after - before < 20_000, "ten bytes a token would be 20,000"
    assert sys.getallocatedblocks() - blocks < 2000


WRITERS = {
    "one": lambda *model, tokenizer: next(generate(*model, tokenizer=tokenizer)),
    "batch": lambda *model, tokenizer: next(
        generate_batch(*model, [b"a"], stopping=Stopping(max_tokens=2), tokenizer=tokenizer)
    ),
    "beam": lambda *model, tokenizer: beam_search(
        *model, num_beams=2, stopping=Stopping(max_tokens=2), tokenizer=tokenizer
    ),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("vocab_size", [64, 255, 257, 300, 512])
def test_the_tokenizer_of_another_model_is_refused(monkeypatch, write, vocab_size):
    with pytest.raises(ConfigError, match=f"has 256 tokens, the model {vocab_size}"):
        write(*build(monkeypatch, vocab_size=vocab_size), tokenizer=BYTES)


@pytest.mark.parametrize(("vocab_size", "belongs"), [(255, False), (256, True), (300, True), (511, True), (512, False)])
def test_a_model_may_have_a_few_tokens_more_than_a_padded_tokenizer(vocab_size, belongs):
    tokenizer = ByteTokenizer()
    tokenizer.padded = True
    if belongs:
        check_vocabulary(tokenizer, vocab_size)
    else:
        with pytest.raises(ConfigError, match="do not belong together"):
            check_vocabulary(tokenizer, vocab_size)
