"""Experts that choose their steps, and experts chosen by motifs of tokens: the definitions, batches, and refusals."""

import math

import numpy as np
import pytest

import helix_core
from helix_core.errors import ConfigError, UsageError
from helix_core.kinds.params import init_params
from helix_plugin_blocks._routing import Motifs
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
from helix_plugin_training import Trainer, load_data
from helix_plugin_training.recipes import Recipe
from helix_testing.layers import traces, usable_backends

EXPERT = {"name": "swiglu", "d_ff": 6}
MOTIFS = ["the", "he", "ab", "abab", [7, 8, 9], "x"]
BACKENDS = [pytest.param(name, marks=[pytest.mark.slow] if traces(name) else []) for name in usable_backends()]


def made(**options):
    layer = helix_core.create("layer", "moe", **{"d_model": 4, "n_experts": 5, "expert": EXPERT, **options})
    return layer, {name: value.astype(np.float64) for name, value in init_params(layer.param_specs(), 0).items()}


def float64():
    return helix_core.create("backend", "core/reference").bind(dtype="float64")


def written_out(layer, p, x):
    """Expert choice in one document x (L, D), expert by expert."""
    F, E = float64(), layer.config.n_experts
    scores = np.exp(x @ p["gate.weight"].T)
    gates = scores / scores.sum(1, keepdims=True)
    y = np.zeros_like(x)
    for e in range(E):
        own = {k.removeprefix(f"experts.{e}."): v for k, v in p.items() if k.startswith(f"experts.{e}.")}
        for t in np.argsort(-gates[:, e])[: math.ceil(len(x) * layer.config.chosen / E)]:
            y[t] += gates[t, e] * layer.expert.apply(F, own, x[t][None, None])[0][0, 0]
    return y


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_experts_choose_their_steps(top_k):
    layer, p = made(router="expert_choice", top_k=top_k)
    x = np.random.default_rng(0).normal(size=(2, 17, 4))
    y, _, balance = layer.apply_with_loss(float64(), p, x)
    assert balance is None
    for row in range(2):
        np.testing.assert_allclose(y[row], written_out(layer, p, x[row]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", BACKENDS)
def test_experts_choose_among_the_steps_of_a_document(name):
    layer, p = made(router="expert_choice")
    backend = helix_core.create("backend", name)
    F = backend.bind()
    x = np.random.default_rng(0).normal(size=(3, 30, 4))
    reset = np.zeros((3, 30), bool)
    reset[:, [0, 1, 13]] = True
    lengths = np.array([30, 13, 22])
    arrays = {k: backend.asarray(v, "float32") for k, v in p.items()}
    y, _ = layer.apply(
        F, arrays, backend.asarray(x, "float32"), reset=backend.asarray(reset), lengths=backend.asarray(lengths)
    )
    for row, end in enumerate(lengths):
        for begin, stop in ((0, 1), (1, 13), (13, end)):
            alone = written_out(layer, p, x[row, begin:stop])
            assert np.abs(backend.to_numpy(y)[row, begin:stop] - alone).max(initial=0) < 1e-5


@pytest.mark.parametrize("options", [{"router": "expert_choice"}, {"router": "motif", "motifs": MOTIFS}])
def test_experts_compute_their_own_steps_only(options, monkeypatch):
    layer, p = made(**options)
    seen = []
    apply = layer.expert.apply
    monkeypatch.setattr(layer.expert, "apply", lambda F, q, x, **rest: (seen.append(x.shape[1]), apply(F, q, x))[1])
    tokens = np.random.default_rng(0).integers(256, size=(3, 11))
    layer.apply(float64(), p, np.random.default_rng(0).normal(size=(3, 11, 4)), shared={"tokens": tokens})
    # 11 steps, two experts each on average: every expert of five takes the best five.
    assert sum(seen) == (3 * 5 * 5 if layer.config.router == "expert_choice" else 3 * 11)


def model_of(mixer, **options):
    mlp = {"name": "moe", "n_experts": 4, "expert": EXPERT, **options}
    return LanguageModel(ModelConfig.model_validate({"d_model": 8, "n_layers": 2, "mixer": mixer, "mlp": mlp}))


def test_a_model_whose_experts_choose_neither_generates_nor_learns_the_next_token(tmp_path):
    config = model_of({"name": "mamba"}, router="expert_choice").config
    (tmp_path / "a.txt").write_bytes(b"some text " * 400)
    recipe = {"name": "ahead", "model": config.model_dump(), "backend": {"name": "cpu"}}
    recipe |= {"data": {"source": str(tmp_path / "a.txt"), "validation": 0.5}}
    recipe |= {"training": {"steps": 1, "batch_size": 1, "seq_len": 16}}
    recipe = Recipe.model_validate(recipe)
    with pytest.raises(UsageError, match=r"the mlp of block 0 \(MoE\) looks ahead") as caught:
        Trainer(recipe, load_data(recipe))
    assert 'router = "learned"' in caught.value.hint
    layer, p = made(router="expert_choice")
    with pytest.raises(ValueError, match="cannot go on from a state"):
        layer.apply(float64(), p, np.zeros((1, 2, 4)), state={})


def longest_motif(tokens, t, runs):
    ending = [i for i, run in enumerate(runs) if len(run) <= t + 1 and tuple(tokens[t + 1 - len(run) : t + 1]) == run]
    return max(ending, key=lambda i: len(runs[i]), default=None)


def test_the_longest_motif_chooses_the_expert():
    layer, _ = made(router="motif", motifs=MOTIFS)
    runs = layer.config.motifs
    assert runs[0] == tuple(b"the")
    text = np.frombuffer(b"the ababab x he other tx\x07\x08\x09thab" * 3, np.uint8).astype(np.int64)
    tokens = np.stack([text, np.roll(text, 5)])
    route = Motifs(runs, 5).route(float64(), tokens, np.full((2, 3), -1), None)
    plain = Motifs([], 5).route(float64(), tokens, np.zeros((2, 0), int), None)
    hits = set()
    for b, t in np.ndindex(*tokens.shape):
        i = longest_motif(tokens[b], t, runs)
        hits.add(i)
        assert route[b, t] == (plain[b, t] if i is None else i % 5)
    assert hits == {None, *range(len(runs))}


def test_tokens_without_a_motif_are_spread_over_the_experts():
    every = np.arange(256)[None]
    experts = Motifs([], 8).route(float64(), every, every[:, :0], None)
    counts = np.bincount(experts[0], minlength=8)
    assert counts.min() > 20
    assert counts.max() < 45


@pytest.mark.parametrize("name", BACKENDS)
def test_motifs_in_chunks_documents_and_padding(name):
    """Each document as if it were alone, on every backend: the state is the last tokens."""
    model = model_of({"name": "mamba"}, router="motif", motifs=MOTIFS)
    backend = helix_core.create("backend", name)
    F = backend.bind(mode="infer")
    params = {k: backend.asarray(v) for k, v in model.init(0).items()}
    text = np.frombuffer(b"the ababab x he other tx\x07\x08\x09thab", np.uint8).astype(np.int64)
    tokens = np.stack([text, np.roll(text, 3)])

    def run(tokens, state=None, **rows):
        rows = {k: backend.asarray(v) for k, v in rows.items()}
        with backend.inference():
            y, state = model.apply(F, params, backend.asarray(tokens), state=state, **rows)
        return backend.to_numpy(y), state

    whole, _ = run(tokens)
    state, parts = model.init_state(F, 2), []
    for begin, end in ((0, 5), (5, 6), (6, 20), (20, 21), (21, len(text))):
        y, state = run(tokens[:, begin:end], state)
        parts.append(y)
    assert np.abs(np.concatenate(parts, 1) - whole).max() < 2e-5
    last = backend.to_numpy(state["blocks"][0]["mlp"]["tokens"])
    assert np.array_equal(last, tokens[:, -3:])

    reset = np.zeros(tokens.shape, bool)
    reset[:, [0, 6]] = True  # within "abab"
    packed, _ = run(tokens, reset=reset)
    assert np.abs(packed[:, 6:] - run(tokens[:, 6:])[0]).max() < 2e-5
    mask = np.ones(tokens.shape, bool)
    mask[1, :9] = False
    padded, state = run(tokens, model.init_state(F, 2), mask=mask)
    alone, following = run(tokens[1:, 9:], model.init_state(F, 1))
    assert np.abs(padded[1:, 9:] - alone).max() < 2e-5
    after, _ = run(np.array([[98], [98]]), state)
    assert np.abs(after[1:] - run(np.array([[98]]), following)[0]).max() < 2e-5
    decoder = backend.decoder(model, F, params, batch=2)
    steps = np.stack([decoder.step(tokens[:, t]) for t in range(tokens.shape[1])], axis=1)
    assert np.abs(steps - whole).max() < 2e-5


def test_a_reset_within_a_call_empties_the_state():
    layer, p = made(router="motif", motifs=["abcd"])
    tokens, x = np.array([list(b"abca")]), np.zeros((1, 4, 4))
    F = float64()

    def after(**rows):
        _, state = layer.apply(F, p, x, state=layer.init_state(F, 1), shared={"tokens": tokens}, **rows)
        return state["tokens"][0].tolist()

    assert after() == list(b"bca")
    assert after(reset=np.array([[False, False, True, False]])) == [-1, *b"ca"]
    assert after(lengths=np.array([2])) == [-1, *b"ab"]
    assert after(reset=np.array([[False, True, False, True]]), lengths=np.array([3])) == [-1, *b"bc"]


def test_a_model_routed_by_motifs_learns():
    backend = helix_core.create("backend", "cpu")
    F = backend.bind()
    model = model_of({"name": "mamba"}, router="motif", motifs=MOTIFS)
    tokens = backend.asarray(np.frombuffer(b"the ababab x he other tx", np.uint8).astype(np.int64)[None])
    params = {k: backend.asarray(v) for k, v in model.init(0).items()}
    optimizer = helix_core.create("optimizer", "adamw")
    state, losses = optimizer.init(F, params), []
    for step in range(1, 61):
        value, grads = backend.value_and_grad(lambda q: loss(model, F, q, tokens[:, :-1], tokens[:, 1:]))(params)
        losses.append(float(value))
        with backend.inference():
            params, state = optimizer.update(F, params, grads, state, lr=2e-2, step=step)
    assert losses[-1] < 0.2 * losses[0]


def test_what_makes_no_sense_is_refused():
    for options, message in (
        ({"router": "expert_choice", "balance": 0.1}, "balance means nothing for router = 'expert_choice'"),
        ({"router": "motif", "normalize": True, "top_k": 1}, "gate would learn nothing"),
        ({"router": "motif", "balance": 0.0}, "balance means nothing"),
        ({"motifs": ["ab"]}, "motifs means nothing for router = 'learned'"),
        ({"router": "motif", "top_k": 2}, "top_k must be 1"),
        ({"router": "motif", "motifs": ["ab", [97, 98]]}, "listed twice"),
        ({"router": "motif", "motifs": [""]}, "at least 1"),
        ({"router": "motif", "motifs": [[-1]]}, "greater than or equal to 0"),
        ({"router": "nobody"}, "'learned', 'expert_choice' or 'motif'"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(**options)
    layer, p = made(router="motif")
    with pytest.raises(ValueError, match="called without them"):
        layer.apply(float64(), p, np.zeros((1, 2, 4)))
    config = model_of({"name": "mamba"}, router="motif").config
    reversible = ModelConfig.model_validate(config.model_dump() | {"reversible": True})
    with pytest.raises(ConfigError, match="reversible blocks do not keep"):
        LanguageModel(reversible)
