"""Hyena: the layer kit, the paper's definition written out, and what is its own: windows, heads, both directions."""

import numpy as np
import pytest

import helix_core
from helix_core.errors import ConfigError, UsageError
from helix_core.kinds.params import init_params
from helix_plugin_hyena.history import carried
from helix_plugin_hyena.implicit_filter import Kept, embedding
from helix_plugin_lm.generation import generate
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_plugin_training import Trainer, load_data
from helix_plugin_training.recipes import Recipe
from helix_testing import BaseLayerTests


class TestHyena(BaseLayerTests):
    layer = "hyena"
    configs = (
        {"d_model": 8, "l_max": 70, "filter_order": 8, "decay_shift": 0.05},
        {
            "d_model": 6,
            "l_max": 90,
            "order": 3,
            "num_heads": 2,
            "filter_order": 5,
            "filter_emb_dim": 5,
            "decay_shift": 0.1,
        },
        {
            "d_model": 5,
            "l_max": 128,
            "short_filter_order": 1,
            "filter_inner_mlps": 0,
            "normalized": True,
            "decay_shift": 1.0,
        },
        {"d_model": 6, "l_max": 80, "num_heads": 2, "outer_product": True, "filter_order": 5, "decay_shift": 0.1},
    )


def make(**options):
    """A layer, the oracle's table and parameters in float64."""
    layer = helix_core.create("layer", "hyena", **{"d_model": 6, "l_max": 40, "filter_order": 7, **options})
    F = helix_core.create("backend", "core/reference").bind(dtype="float64")
    params = {k: v.astype(np.float64) for k, v in init_params(layer.param_specs(), 0).items()}
    return layer, F, params


def written_out(c, p, x):
    """The operator as published, one channel and one step at a time: x (L, D) -> (L, D)."""
    L, D = x.shape
    u = x @ p["in_proj.weight"].T + p["in_proj.bias"]
    K = c.short_filter_order
    short = np.zeros_like(u) + p["short_filter.bias"]
    for t in range(L):
        for j in range(K):
            if t - j >= 0:
                short[t] += p["short_filter.weight"][:, K - 1 - j] * u[t - j]
    t = np.linspace(0, 1, c.l_max)
    f = np.linspace(1e-4, (c.filter_emb_dim - 1) // 2 - 1, (c.filter_emb_dim - 1) // 2)
    wave = np.exp(-2j * np.pi * np.arange(c.l_max)[:, None] / c.l_max * f)
    h = np.concatenate([t[:, None], wave.real, wave.imag], 1)
    for i in range(c.filter_inner_mlps + 1):
        h = np.sin(p["filter.freq"] * (h @ p[f"filter.layers.{i}.weight"].T + p[f"filter.layers.{i}.bias"]))
    h = h @ p["filter.out.weight"].T
    head = D // c.num_heads
    rates = np.linspace(np.log(c.decay_target) / c.slow_decay_pct, np.log(c.decay_target) / c.fast_decay_pct, head)
    parts = np.split(short, c.order + 1, axis=1)
    v = parts[-1]
    for o in range(c.order - 1):
        filters = h[:, o * head : (o + 1) * head] * (np.exp(-t[:, None] * np.abs(rates)) + c.decay_shift)
        v = v * parts[c.order - 1 - o]
        y = np.zeros_like(v)
        for d in range(D):
            for s in range(L):
                for r in range(max(0, s - c.l_max + 1), s + 1):
                    y[s, d] += filters[s - r, d % head] * v[r, d]
            y[:, d] += p["filter.bias"][o * head + d % head] * v[:, d]
        v = y
    return (v * parts[0]) @ p["out_proj.weight"].T + p["out_proj.bias"]


@pytest.mark.parametrize(
    "options", [{}, {"order": 3}, {"num_heads": 3, "decay_shift": 0.2}, {"l_max": 9}, {"filter_emb_dim": 7}]
)
def test_the_published_operator(options):
    layer, F, p = make(**options)
    x = np.random.default_rng(1).normal(size=(2, 25, 6))
    y, _ = layer.apply(F, p, x)
    for row in range(2):
        assert np.abs(y[row] - written_out(layer.config, p, x[row])).max() < 1e-12


def test_multihyena_is_a_filter_for_each_heads_outer_products():
    layer, F, p = make(num_heads=2, outer_product=True, l_max=20)
    x = np.random.default_rng(1).normal(size=(2, 25, 6))
    (h,) = layer.filters(F, p, 20)
    h = h[:, ::9]  # of a head, the same for its 3 x 3 products
    u = x @ p["in_proj.weight"].T + p["in_proj.bias"]
    u = np.concatenate([np.zeros((2, 2, 18)), u], 1)
    u = sum(u[:, j : j + 25] * p["short_filter.weight"][:, j] for j in range(3)) + p["short_filter.bias"]
    q, k, v = (part.reshape(2, 25, 2, 3) for part in np.split(u, 3, axis=2))
    y = np.zeros((2, 25, 2, 3))
    for b, t, m in np.ndindex(2, 25, 2):
        z = sum(h[t - s, m] * np.outer(v[b, s, m], k[b, s, m]) for s in range(max(0, t - 19), t + 1))
        y[b, t, m] = z @ q[b, t, m]
    expected = y.reshape(2, 25, 6) @ p["out_proj.weight"].T + p["out_proj.bias"]
    assert np.abs(layer.apply(F, p, x)[0] - expected).max() < 1e-12


def test_what_lies_further_back_than_l_max_has_no_influence():
    layer, F, p = make(l_max=9)
    x = np.random.default_rng(1).normal(size=(1, 40, 6))
    changed = x.copy()
    changed[:, :10] = 0.0
    whole = layer.apply(F, p, x)[0]
    reach = 9 + layer.config.short_filter_order - 1
    assert np.abs(layer.apply(F, p, changed)[0][:, 9 + reach :] - whole[:, 9 + reach :]).max() < 1e-12
    state, parts = layer.init_state(F, 1), []
    for begin, end in ((0, 3), (3, 4), (4, 30), (30, 31), (31, 40)):
        y, state = layer.apply(F, p, x[:, begin:end], state=state)
        parts.append(y)
    assert np.abs(np.concatenate(parts, 1) - whole).max() < 1e-12


def test_bidirectional_is_the_sum_of_two_directions():
    layer, F, p = make(bidirectional=True)
    assert not layer.causal
    v = np.random.default_rng(1).normal(size=(2, 30, 6))
    back, ahead = layer.filters(F, p, 40)
    from helix_plugin_hyena.hyena import both_ways

    y = both_ways(F, v, back, ahead, None, None)
    expected = np.zeros_like(v)
    for t in range(30):
        for s in range(30):
            expected[:, t] += (back[t - s] if s <= t else ahead[s - t]) * v[:, s]
    assert np.abs(y - expected).max() < 1e-12


def test_a_model_that_looks_ahead_neither_generates_nor_learns_the_next_token(tmp_path):
    mixer = {"name": "hyena", "l_max": 40, "filter_order": 7, "bidirectional": True}
    config = {"d_model": 6, "n_layers": 2, "mixer": [{"name": "hyena", "l_max": 40}, mixer]}
    model = LanguageModel(ModelConfig.model_validate(config))
    backend = helix_core.create("backend", "core/reference")
    with pytest.raises(UsageError, match="generation needs causal layers, and the mixer of block 1"):
        generate(model, backend, backend.bind(mode="infer"), model.init(0), b"ab")
    (tmp_path / "a.txt").write_bytes(b"some text " * 400)
    recipe = {"name": "ahead", "model": config, "data": {"source": str(tmp_path / "a.txt"), "validation": 0.5}}
    recipe |= {"training": {"steps": 1, "batch_size": 1, "seq_len": 16}, "backend": {"name": "cpu"}}
    recipe = Recipe.model_validate(recipe)
    with pytest.raises(UsageError, match="training on the next token needs causal layers"):
        Trainer(recipe, load_data(recipe))


@pytest.mark.parametrize("backend", ["core/reference", "cpu"])
def test_bidirectional_documents_and_padding(backend):
    layer = helix_core.create("layer", "hyena", d_model=6, l_max=40, filter_order=7, bidirectional=True)
    backend = helix_core.create("backend", backend)
    F = backend.bind()
    p = {k: backend.asarray(v, "float32") for k, v in init_params(layer.param_specs(), 0).items()}

    def run(x, **rows):
        extra = {k: backend.asarray(v) for k, v in rows.items()}
        return backend.to_numpy(layer.apply(F, p, backend.asarray(x, "float32"), **extra)[0])

    x = np.random.default_rng(1).normal(size=(2, 30, 6))
    assert np.abs(run(x[:, :20])[:, 0] - run(x)[:, 0]).max() > 1e-4, "the future reaches the past"
    reset = np.zeros((2, 30), bool)
    reset[:, [0, 1, 13]] = True
    packed = run(x, reset=reset, lengths=np.array([30, 22]))
    for row, end in enumerate((30, 22)):
        for begin, stop in ((0, 1), (1, 13), (13, end)):
            alone = run(x[row : row + 1, begin:stop])
            assert np.abs(packed[row, begin:stop] - alone[0]).max() < 1e-5
    with pytest.raises(ValueError, match="cannot go on from a state"):
        layer.apply(F, p, backend.asarray(x, "float32"), state={})


def test_filters_are_computed_once_in_inference():
    torch = pytest.importorskip("torch")
    layer = helix_core.create("layer", "hyena", d_model=6, l_max=40, filter_order=7)
    backend = helix_core.create("backend", "cpu")
    F = backend.bind(mode="infer")
    p = {k: backend.asarray(v, "float32") for k, v in init_params(layer.param_specs(), 0).items()}
    calls, compute = [], layer.filters
    layer.filters = lambda *args: calls.append(args) or compute(*args)
    x = torch.randn(1, 20, 6)
    with backend.inference():
        first, state = layer.apply(F, p, x, state=layer.init_state(F, 1))
        for t in range(3):
            _, state = layer.apply(F, p, x[:, t : t + 1], state=state)
        assert len(calls) == 1
        p["filter.out.weight"].mul_(2.0)
        p["filter.bias"].mul_(2.0)
        changed, _ = layer.apply(F, p, x)
    assert len(calls) == 2
    bias = p["out_proj.bias"]
    assert torch.allclose(changed - bias, 2 * (first - bias), atol=1e-5)


def test_kept_values_follow_their_arrays():
    torch = pytest.importorskip("torch")
    kept, a = Kept(), torch.zeros(2)
    assert kept.get([a], lambda: 1) == 1
    assert kept.get([a], lambda: 2) == 1
    a += 1
    assert kept.get([a], lambda: 3) == 3
    assert kept.get([a.clone()], lambda: 4) == 4
    plain = np.zeros(2)
    assert [kept.get([plain], lambda i=i: i) for i in (5, 6)] == [5, 6]


# torch's compiler itself uses what torch deprecates, on its first import.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_inference():
    torch = pytest.importorskip("torch")
    layer = helix_core.create("layer", "hyena", d_model=8, l_max=40, filter_order=8)
    backend = helix_core.create("backend", "cpu")
    F = backend.bind(mode="infer")
    p = {k: backend.asarray(v, "float32") for k, v in init_params(layer.param_specs(), 0).items()}
    compiled = backend.compile(lambda p, x: layer.apply(F, p, x)[0])
    x = torch.randn(2, 20, 8)
    with backend.inference():
        assert torch.allclose(compiled(p, x), layer.apply(F, p, x)[0], atol=1e-5)


def test_history_of_rows_that_end_and_restart():
    history = np.arange(1.0, 4.0).reshape(1, 3, 1)
    new = np.arange(10.0, 14.0).reshape(1, 4, 1)

    def after(reset=None, length=None):
        flags = None if reset is None else np.isin(np.arange(4), reset)[None]
        return carried(np, history, new, flags, None if length is None else np.array([length]))[0, :, 0].tolist()

    assert after() == [11, 12, 13]
    assert after(length=0) == [1, 2, 3]
    assert after(length=1) == [2, 3, 10]
    assert after(reset=[2]) == [0, 12, 13]
    assert after(reset=[0], length=2) == [0, 10, 11]
    assert after(reset=[3], length=2) == [3, 10, 11]


def test_embeddings_are_those_of_the_authors():
    z = embedding(np, 8, 8, 5, np.zeros(1))
    assert z.shape == (8, 5)
    assert np.allclose(z[:, 0], np.linspace(0, 1, 8))
    assert np.allclose(z[2], [2 / 7, np.cos(2e-4 * np.pi / 4), 0.0, -np.sin(2e-4 * np.pi / 4), -1.0], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 4}, "divisible by num_heads"),
        ({"filter_emb_dim": 4}, "must be odd"),
        ({"order": 1}, "order"),
        ({"order": 3, "outer_product": True}, "order = 2"),
        ({"decoding": "fast"}, "'auto', 'direct' or 'online'"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ConfigError, match=message):
        helix_core.create("layer", "hyena", d_model=6, **options)
