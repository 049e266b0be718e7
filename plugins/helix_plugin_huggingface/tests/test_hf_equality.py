"""The same logits, the same tokens and the same tensors as transformers, both ways, on every backend."""

import json
from types import SimpleNamespace

import hf_models
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from helix_plugin_lm.runs.load import load_run
from helix_testing.layers import usable_backends

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from safetensors.torch import load_file  # noqa: E402

BACKENDS = usable_backends()
TOKENS = np.random.default_rng(1).integers(0, 61, (2, 37))


def ours(run, backend):
    loaded = load_run(run, backend=backend)
    with loaded.backend.inference():
        logits, _ = loaded.model.apply(loaded.F, loaded.params, loaded.backend.asarray(TOKENS))
        return loaded.backend.to_numpy(logits)


def theirs(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS), use_cache=False).logits.float().numpy()


def assert_equal_logits(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "mixed" in name else []) for name in hf_models.SHAPES]
)
def test_logits_both_ways_and_tensors_round_trip(name, tmp_path, helix, caplog):
    model = hf_models.random_model(name)
    model.save_pretrained(tmp_path / "theirs")
    assert helix("import", tmp_path / "theirs", "--out", tmp_path / "run")[0] == 0
    expected = theirs(model)
    for backend in BACKENDS:
        assert_equal_logits(ours(tmp_path / "run", backend), expected)
    assert helix("export", tmp_path / "run", "--format", "hf", "--out", tmp_path / "back")[0] == 0
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "back"))
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert value.dtype == after[key].dtype
        assert torch.equal(value, after[key]), key
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert type(loaded) is type(model)
    assert not any(report.values()), report
    assert not [record.message for record in caplog.records if "key" in record.message.lower()]
    if getattr(model.config, "num_experts", 0):
        assert_equal_logits(theirs(loaded.eval()), expected)  # torch's grouped products round by where weights lie
    else:
        np.testing.assert_array_equal(theirs(loaded.eval()), expected)


@pytest.mark.parametrize(
    "name", ["mamba", "mamba2", "falcon-mamba", "rwkv", pytest.param("qwen3-next", marks=pytest.mark.slow)]
)
def test_the_same_200_greedy_tokens(name, tmp_path, helix):
    model = hf_models.random_model(name, seed=3)
    model.save_pretrained(tmp_path / "theirs")
    assert helix("import", tmp_path / "theirs", "--out", tmp_path / "run")[0] == 0
    prompt = torch.tensor(TOKENS[:1, :7])
    mask = torch.ones_like(prompt)
    expected = model.generate(prompt, attention_mask=mask, max_new_tokens=200, min_new_tokens=200, do_sample=False)
    for backend in BACKENDS:
        loaded = load_run(tmp_path / "run", backend=backend)
        decoder = loaded.backend.decoder(loaded.model, loaded.F, loaded.params)
        tokens = TOKENS[0, :7].tolist()
        for token in tokens:
            logits = decoder.step(np.array([token]))
        while len(tokens) < 207:
            tokens.append(int(np.argmax(logits[0])))
            logits = decoder.step(np.array([tokens[-1]]))
        assert tokens == expected[0].tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_comes_back_bit_for_bit(dtype, tmp_path, helix):
    model = hf_models.random_model("mamba2", dtype=getattr(torch, dtype))
    model.save_pretrained(tmp_path / "theirs")
    assert helix("import", tmp_path / "theirs", "--out", tmp_path / "run")[0] == 0
    assert_equal_logits(ours(tmp_path / "run", "reference"), theirs(model.float()))
    assert helix("export", tmp_path / "run", "--out", tmp_path / "back")[0] == 0
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "back"))
    for key, value in before.items():
        assert value.dtype == getattr(torch, dtype)
        assert torch.equal(value, after[key]), key
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == dtype


def test_rounding_to_bfloat16_is_torchs():
    from helix_plugin_huggingface.convert import exported
    from helix_plugin_lm.storage.tensor_file import Tensor

    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    # But for the largest, which bfloat16 would round to infinity: export refuses them.
    values[np.isfinite(values) & (np.abs(values) > np.float32(3.3895e38))] = 1.0
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    tensor = Tensor("F32", values.shape, lambda: values)
    family = SimpleNamespace(names=lambda model: {"ours": SimpleNamespace(name="theirs", shape=values.shape)})
    found = exported(family, None, {"ours": tensor}, {}, "BF16")["theirs"].read()
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(found[numbers], expected[numbers])
    assert np.isnan(np.left_shift(found, 16, dtype=np.uint32).view(np.float32)[~numbers]).all()


def test_shards_and_companions(tmp_path, helix):
    model = hf_models.random_model("mamba-untied")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(model.config.vocab_size)}, unk_token="w0"))
    words.save(str(tmp_path / "theirs" / "tokenizer.json"))
    (tmp_path / "theirs" / "tokenizer_config.json").write_text("{}")
    assert helix("import", tmp_path / "theirs" / "model.safetensors.index.json", "--out", tmp_path / "run")[0] == 0
    assert (tmp_path / "run" / "tokenizer.json").is_file()
    assert_equal_logits(ours(tmp_path / "run", "reference"), theirs(model))
    assert helix("export", tmp_path / "run", "--out", tmp_path / "back")[0] == 0
    assert {path.name for path in (tmp_path / "back").iterdir()} >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("name", ["mamba", "mamba2-tied"])
def test_the_authors_own_checkpoints(name, tmp_path, helix):
    """Their config's keys, a pytorch_model.bin, `embedding` for `embeddings`, the tied head beside it."""
    model = hf_models.random_model(name, vocab_size=64)
    state = {key.replace("embeddings", "embedding"): value for key, value in model.state_dict().items()}
    folder = tmp_path / "theirs"
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    ssm = {"d_state": model.config.state_size}
    if name == "mamba2-tied":
        ssm |= {"layer": "Mamba2", "headdim": 8}
    config = {"d_model": 24, "n_layer": 2, "vocab_size": 61, "ssm_cfg": ssm, "rms_norm": True}
    config |= {"residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8, "tie_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    assert helix("import", folder, "--out", tmp_path / "run")[0] == 0
    assert_equal_logits(ours(tmp_path / "run", "reference"), theirs(model))
    assert helix("export", tmp_path / "run", "--out", tmp_path / "back")[0] == 0
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert_equal_logits(theirs(loaded.eval()), theirs(model))  # chunk_size is transformers' own, and rounds
