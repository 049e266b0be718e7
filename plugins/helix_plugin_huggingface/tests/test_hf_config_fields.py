"""Every field of a config.json is honoured, known to change nothing, or refused: never read past."""

import dataclasses
import json
import shutil

import hf_models
import numpy as np
import pytest

from helix_core.errors import HelixError
from helix_plugin_huggingface.reading import import_checkpoint
from helix_plugin_lm.runs.load import load_run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
TOKENS = np.random.default_rng(1).integers(0, 61, (2, 37))
ROPE = {"rope_theta": 500.0, "partial_rotary_factor": 0.5}

# What a model would be like if its layers read these, which none of transformers' own fields says.
FOREIGN = {
    "logit_scale": [2.0],
    "final_logit_softcapping": [30.0],
    "sliding_window_pattern": [2],
    "use_sliding_window": [True],
    "quantization_config": [{"quant_method": "bitnet"}],
    "per_layer_config": [{"0": {"layer_norm_epsilon": 0.5}}, {"0": {"rms_norm_eps": 0.5}}],
    "add_cross_attention": [True],
    "is_decoder": [True],
}
# What some versions of transformers, or other layouts, read.
LEGACY = {
    "intermediate_size": [24, 48, 50, 96],
    "expand": [1, 3, 1.5],
    "full_attention_interval": [1, 2, 3],
    "rope_scaling": [{"type": "linear", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}, {}],
    "rope_theta": [100.0],
    "partial_rotary_factor": [0.5, 1.0, 0.875, 0.1],
    "rope_parameters": [
        {**ROPE, "type": "linear", "factor": 2.0},
        {**ROPE, "rope_type": "linear", "factor": 2.0},
        {**ROPE, "rope_type": "default", "factor": 2.0},
        {**ROPE, "rope_type": "yarn", "factor": 2.0},
        {**ROPE, "partial_rotary_factor": 0.875},
        {**ROPE, "partial_rotary_factor": 0.4},
        {"full_attention": {**ROPE, "rope_type": "linear", "factor": 2.0}},
        {**ROPE, "attention_factor": 2.0},
        {"rope_theta": 500.0},
        ROPE,
    ],
    "max_position_embeddings": [64, 1000],
    "layer_types": [["linear_attention"] * 2, ["full_attention", "linear_attention"]],
}
# Where transformers does something to the weights that Helix does not, which docs/huggingface.md says.
DOCUMENTED = {"rescale_prenorm_residual", "rescale_every"}


def others(value):
    """Other values of a field, most of which mean something else."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2, value // 2, 0, 1, value + 0.5]
    if isinstance(value, str):
        return ["gelu", "relu", "bfloat16"]
    if isinstance(value, list):
        return [[], value[::-1], value[:1] * len(value), [0], [1]]
    return [1, True, "x", [0]]


def theirs(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    if any(report.values()):
        return None
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS), use_cache=False).logits.numpy()


def ours(folder, run):
    import_checkpoint(folder, run)
    loaded = load_run(run, backend="cpu")
    with loaded.backend.inference():
        logits, _ = loaded.model.apply(loaded.F, loaded.params, loaded.backend.asarray(TOKENS))
        return loaded.backend.to_numpy(logits)


class Edited:
    """A saved model under other values of the fields of its config.json."""

    def __init__(self, name, folder):
        self.saved, self.run = folder / "saved", folder / "run"
        hf_models.random_model(name).save_pretrained(self.saved)
        self.config = json.loads((self.saved / "config.json").read_text())

    def difference(self, **changes):
        """Of logits, relative to the largest; "refused" by Helix, or "none" if transformers has no such model."""
        config = {k: v for k, v in (self.config | changes).items() if v is not None}
        (self.saved / "config.json").write_text(json.dumps(config))
        shutil.rmtree(self.run, ignore_errors=True)
        try:
            found = ours(self.saved, self.run)
        except HelixError:
            return "refused"
        try:
            expected = theirs(self.saved)
        except Exception:  # of many kinds
            return "none"
        return "none" if expected is None else np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mamba", "falcon-mamba", "mamba2", "rwkv-widths", "qwen3-next", "qwen3-next-mixed"])
def test_a_change_of_any_field_is_honoured_or_refused(name, tmp_path):
    edited = Edited(name, tmp_path)
    kind = transformers.AutoConfig.for_model(edited.config["model_type"])
    fields = {f.name: getattr(kind, f.name, None) for f in dataclasses.fields(kind)} | edited.config
    wrong = {}
    for key in sorted({*fields, *FOREIGN, *LEGACY} - {"model_type", "architectures", "return_dict", *DOCUMENTED}):
        own = others(fields[key]) if key in fields else []
        for value in [*own, *FOREIGN.get(key, []), *LEGACY.get(key, [])]:
            found = edited.difference(**{key: value})
            if isinstance(found, float) and found > 1e-4:
                wrong[f"{key} = {value}"] = found
    assert not wrong


@pytest.mark.parametrize("name", ["mamba", "rwkv", "qwen3-next"])
@pytest.mark.parametrize("key", FOREIGN)
def test_fields_that_helix_does_not_know_are_refused(name, key, tmp_path, helix):
    edited = Edited(name, tmp_path)
    config = edited.config | {key: FOREIGN[key][0]}
    (edited.saved / "config.json").write_text(json.dumps(config))
    code, _, error = helix("import", edited.saved, "--out", edited.run)
    assert code == 2
    assert f"{key} = " in error
    assert not edited.run.exists()
    config[key] = None
    (edited.saved / "config.json").write_text(json.dumps(config))
    assert helix("import", edited.saved, "--out", edited.run)[0] == 0


@pytest.mark.parametrize(
    ("rope", "said"),
    [
        ({"type": "linear", "factor": 2.0}, "type = 'linear'"),
        ({"rope_type": "yarn"}, "rope_type = 'yarn'"),
        ({"factor": 2.0}, "rope_parameters: factor = 2.0"),
        ({"mrope_section": [1, 1]}, "rope_parameters: mrope_section"),
        ({"full_attention": {"rope_type": "linear"}}, "rope_parameters: full_attention"),
        ({"partial_rotary_factor": 0.875}, "head_dim * partial_rotary_factor = 7"),
        ({"partial_rotary_factor": 0.4}, "head_dim * partial_rotary_factor = 3"),
    ],
)
def test_rotary_positions_that_helix_has_not(rope, said, tmp_path, helix):
    edited = Edited("qwen3-next", tmp_path)
    (edited.saved / "config.json").write_text(json.dumps(edited.config | {"rope_parameters": ROPE | rope}))
    code, _, error = helix("import", edited.saved, "--out", edited.run)
    assert code == 2
    assert said in error


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_parameters": ROPE},
        {"rope_parameters": {**ROPE, "type": "default"}},
        {"rope_parameters": None, "rope_theta": 500.0, "partial_rotary_factor": 0.5, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 500.0}, "partial_rotary_factor": 1.0},
        {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.3}},  # 2.4 channels
    ],
)
def test_rotary_positions_wherever_they_are_said(rope, tmp_path):
    assert Edited("qwen3-next", tmp_path).difference(**rope) <= 1e-4


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "null", '"1"', "[]", "{}"])
@pytest.mark.parametrize("key", ["hidden_size", "layer_norm_epsilon", "num_hidden_layers", "time_step_rank"])
def test_numbers_that_are_none(key, value, saved, helix, tmp_path):
    text = json.dumps(json.loads((saved / "config.json").read_text()) | {key: "HERE"})
    (saved / "config.json").write_text(text.replace('"HERE"', value))
    code, _, error = helix("import", saved, "--out", tmp_path / "run")
    assert code == 2
    assert key in error or (len(value) > 99 and "a number has 400 digits" in error)  # refused before it has a meaning


def test_the_authors_config_has_no_unknown_fields_either(tmp_path, helix):
    config = {"d_model": 8, "n_layer": 1, "vocab_size": 8, "ssm_cfg": {"d_state": 4, "n_states": 3}}
    torch.save({}, tmp_path / "pytorch_model.bin")
    for changes, said in (({}, "ssm_cfg: n_states = 3"), ({"ssm_cfg": {}, "norm_eps": 1}, "norm_eps = 1")):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        code, _, error = helix("import", tmp_path, "--out", tmp_path / "run")
        assert code == 2
        assert said in error


def test_an_adapter_is_not_left_out(saved, helix, tmp_path):
    (saved / "adapter_config.json").write_text("{}")
    code, _, error = helix("import", saved, "--out", tmp_path / "run")
    assert code == 2
    assert "has an adapter" in error
