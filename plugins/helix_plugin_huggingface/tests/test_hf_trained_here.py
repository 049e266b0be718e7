"""Models that were never Hugging Face's, in the form of its RWKV and Qwen3-Next: exported, they say the same there."""

import json

import numpy as np
import pytest

from helix_plugin_lm.runs.load import load_run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

RWKV = """
norm = "layer_norm"
embedding_norm = true
mixer = { name = "rwkv4" }
mlp = { name = "rwkv4_channel_mix", expand = 3.0 }
"""
QWEN = """
norm = "zero_centered_rms_norm"
norm_eps = 1e-6
mixer = [
    { name = "gated_deltanet", n_heads = 2 },
    { name = "attention", n_heads = 2, qk_norm = "zero_centered", gate = true, rope_fraction = 0.5, max_length = 128 },
]
mlp = [
    { name = "swiglu" },
    { name = "moe", n_experts = 3, expert = { name = "swiglu" }, shared_expert = { name = "swiglu", d_ff = 8 } },
]
"""
RECIPE = """
name = "own"
[model]
d_model = 16
n_layers = 2
tie_embeddings = false
{model}
[training]
steps = 2
batch_size = 2
seq_len = 16
[sample]
max_bytes = 4
"""


@pytest.mark.parametrize("model", [RWKV, QWEN], ids=["rwkv", "qwen3-next"])
def test_a_run_trained_here_says_the_same_there(model, tmp_path, helix):
    (tmp_path / "recipe.toml").write_text(RECIPE.format(model=model))
    (tmp_path / "text.txt").write_text("some text " * 200)
    data = f"data.source={tmp_path / 'text.txt'}"
    code, _, err = helix("train", tmp_path / "recipe.toml", "--set", data, "--runs", tmp_path / "runs")
    assert code == 0, err
    (run,) = (tmp_path / "runs").iterdir()
    assert helix("export", run, "--out", tmp_path / "out")[0] == 0
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    tokens = np.random.default_rng(0).integers(256, size=(2, 30))
    ours = load_run(run, backend="cpu")
    with torch.no_grad(), ours.backend.inference():
        expected = theirs.eval()(torch.tensor(tokens), use_cache=False).logits.numpy()
        found = ours.backend.to_numpy(ours.model.apply(ours.F, ours.params, ours.backend.asarray(tokens))[0])
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert helix("import", tmp_path / "out", "--out", tmp_path / "again")[0] == 0
    shapes = [{k: tuple(p.shape) for k, p in load_run(path).params.items()} for path in (run, tmp_path / "again")]
    assert shapes[0] == shapes[1]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 256
