"""What is wrong is said by name, with an exit code, and leaves nothing behind."""

import json
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hf_models import random_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_core.errors import CheckpointError
from helix_plugin_huggingface.source import open_pickle

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file  # noqa: E402


@pytest.fixture
def refused(helix, saved, tmp_path):
    """Import the saved model, which must fail, and return what was said."""

    def check(code, source=None, out="run"):
        found, _, error = helix("import", source or saved, "--out", tmp_path / out)
        assert found == code, error
        assert error.startswith("error: ")
        assert "Traceback" not in error
        assert [path.name for path in tmp_path.iterdir()] == ["saved"]
        return error

    return check


def edit_weights(folder, **changes):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, file, {"format": "pt"})


def test_every_problem_is_named(saved, refused):
    edit_weights(
        saved,
        **{
            "backbone.norm_f.weight": None,
            "backbone.layers.1.mixer.D": torch.ones(7),
            "backbone.layers.0.mixer.A_log": torch.ones(48, 5, dtype=torch.int64),
            "surplus": torch.ones(2, 3),
        },
    )
    error = refused(1)
    assert "missing backbone.norm_f.weight (24,)" in error
    assert "unexpected surplus (2, 3)" in error
    assert "backbone.layers.1.mixer.D is (7,), config.json makes it (48,)" in error
    assert "backbone.layers.0.mixer.A_log is of dtype I64" in error


def test_weights_of_another_architecture(saved, edit_config, refused):
    edit_config(model_type="mamba2", num_heads=6, head_dim=8, n_groups=1)
    error = refused(1)
    assert "Mamba2ForCausalLM" in error
    assert "missing backbone.layers.0.mixer.dt_bias" in error
    assert "unexpected backbone.layers.0.mixer.x_proj.weight" in error


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mamba3"}, "did you mean 'mamba"),
        ({"model_type": "llama"}, "supported: mamba, falcon_mamba, mamba2"),
        ({"model_type": "qwen3_5"}, "hybrid"),
        ({"model_type": 7}, "model_type 7 is not supported"),
        ({"model_type": None}, "has no model_type"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' cannot be imported"),
        ({"hidden_size": "big"}, "hidden_size must be a whole number"),
        ({"hidden_size": 0}, "hidden_size must be a whole number, at least 1"),
        ({"use_bias": "no"}, "use_bias must be true or false"),
        ({"layer_norm_epsilon": -1}, "layer_norm_epsilon must be a number above 0"),
        ({"intermediate_size": 50}, "no multiple of hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; a model has at most 2048 blocks"),
        ({"vocab_size": 1e400}, "vocab_size must be a whole number"),
        ({"state_size": 10**30}, "state_size must be a whole number"),
    ],
)
def test_configs(changes, said, edit_config, refused):
    edit_config(**changes)
    assert said in refused(2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state_size": 2**31 - 1}, "backbone.layers.0.mixer.A_log is (48, 5), config.json makes it (48, 2147483647)"),
        ({"vocab_size": 2**31 - 1}, "vocab_size = 2147483647"),
        ({"time_step_rank": 2**31 - 1}, "config.json makes it (48, 2147483647)"),
        ({"num_hidden_layers": 2048}, "n_layers = 2048"),
    ],
)
def test_claims_are_compared_with_the_file_before_they_take_memory(changes, said, edit_config, refused):
    edit_config(**changes)
    tracemalloc.start()
    assert said in refused(1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**26


def test_a_tensor_of_more_numbers_than_the_file_has(tmp_path):
    torch.save({"a": torch.zeros(1).expand(2**20, 2**20)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="a claims to be"):
        open_pickle(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("text", ["[1]", '"mamba"', "{", "", "\xff", "[" * 100_000])
def test_a_config_that_is_no_object(text, saved, refused):
    (saved / "config.json").write_text(text, encoding="latin-1")
    assert "config.json" in refused(2)


def test_a_tied_head_of_its_own(saved, refused):
    edit_weights(saved, **{"lm_head.weight": torch.zeros(61, 24)})
    assert "tie_word_embeddings" in refused(1)


def test_folders_and_files_that_are_none(saved, refused, helix, tmp_path):
    assert "there is no" in refused(2, tmp_path / "absent")
    assert "no weight file" in refused(2, saved / "config.json")
    (saved / "config.json").rename(saved / "other.json")
    assert "has no config.json" in refused(2)
    (saved / "model.safetensors").unlink()
    assert "has no weights" in refused(2)
    assert helix("import", saved, "--out", saved)[0] == 2  # exists


@pytest.mark.parametrize("place", ["../x.safetensors", "/etc/passwd", "a/b", "..", "", "..\\x"])
def test_an_index_cannot_lead_elsewhere(place, saved, refused):
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": place}}))
    assert "not a file beside it" in refused(1)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{"])
def test_an_index_that_is_none(index, saved, refused):
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(index)
    assert "index.json" in refused(1)


def test_missing_shards_and_tensors_are_named(saved, refused):
    (saved / "model.safetensors").rename(saved / "one.safetensors")
    index = saved / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert "1 of 2 shards are missing: two.safetensors" in refused(1)
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    error = refused(1)
    assert "missing one.safetensors: a" in error
    assert "not listed one.safetensors: backbone.embeddings.weight" in error


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, protocol=2))])
def test_a_pickle_with_code_is_refused_and_not_executed(save, saved, refused, tmp_path):
    (saved / "model.safetensors").unlink()
    save({"backbone.embeddings.weight": Bomb(tmp_path / "executed")}, saved / "pytorch_model.bin")
    assert "refused" in refused(1)


def test_a_pickle_of_something_else(saved, refused):
    (saved / "model.safetensors").unlink()
    for thing in ([1, 2], {"a": 1}, {"a": torch.ones(2).to_sparse()}, {1: torch.ones(2)}):
        torch.save(thing, saved / "pytorch_model.bin")
        refused(1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_damaged_torch_files(draw, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(6.0)}, path)
    whole = path.read_bytes()
    at = draw.draw(st.integers(0, len(whole) - 1))
    damaged = [whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :], b"", b"\x80\x02."]
    path.write_bytes(draw.draw(st.sampled_from(damaged) | st.binary(max_size=100)))
    try:
        found = open_pickle(path)
    except CheckpointError:
        return
    assert all(np.asarray(tensor.read()).shape == tensor.shape for tensor in found.values())


def header(entries, data=b"", length=None):
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "no header": b"\1\0",
        "a huge header": header({}, length=2**63),
        "a header beyond the file": header({}, length=1000),
        "no JSON": header(b"{nonsense"),
        "a list": header([]),
        "overlap": header(
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            bytes(12),
        ),
        "a hole": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        "another length than the shape's": header(
            {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)
        ),
        "a shape that overflows": header(
            {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, bytes(8)
        ),
        "offsets that run backwards": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
        "an unknown dtype": header({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "a truncated tensor": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(9)),
    }.items(),
    ids=lambda case: case[0],
)
def test_malformed_headers(content, saved, refused):
    (saved / "model.safetensors").write_bytes(content[1])
    assert "not a whole safetensors file" in refused(1)


def test_ctrl_c_leaves_nothing(saved, helix, tmp_path, monkeypatch):
    import signal

    from helix_plugin_lm.storage.tensor_file import Tensor

    read, count = Tensor.numpy, []
    state = load_file(saved / "model.safetensors")
    save_file({name: value.half() for name, value in state.items()}, saved / "model.safetensors")

    def interrupted(self):
        count.append(self)
        if len(count) == 5:
            signal.raise_signal(signal.SIGINT)
        return read(self)

    monkeypatch.setattr(Tensor, "numpy", interrupted)
    code, _, error = helix("import", saved, "--out", tmp_path / "runs" / "run")
    assert code == 130
    assert "nothing was written" in error
    assert len(count) == 5
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_full_disk_leaves_nothing(saved, helix, tmp_path, monkeypatch):
    import errno

    from helix_plugin_lm.runs import checkpoint

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    code, _, error = helix("import", saved, "--out", tmp_path / "runs" / "run")
    assert code == 1
    assert "No space left" in error
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"mixer": {"name": "s4d"}}, "no model of s4d blocks"),
        ({"mixer": ({"name": "mamba"}, {"name": "mamba2", "head_dim": 8})}, "no model of mamba, mamba2 blocks"),
        ({"mixer": {"name": "mamba"}, "norm": "layer_norm"}, "layer_norm"),
        ({"mixer": {"name": "mamba"}, "mlp": {"name": "mingru"}}, "mingru"),
        ({"mixer": ({"name": "mamba"}, {"name": "mamba", "d_state": 3})}, "differ from each other"),
    ],
)
def test_runs_that_transformers_has_no_model_for(model, said, helix, tmp_path):
    from helix_plugin_lm.runs import RunFolder
    from helix_plugin_training.recipes import Recipe, dump_recipe

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    described = {"name": "x", "model": {"d_model": 16, "n_layers": 2, **model}, "training": {"steps": 1}}
    run.write_recipe(dump_recipe(Recipe.model_validate(described)))
    run.checkpoints.mkdir()
    (run.checkpoints / "step-00000001").mkdir()
    code, _, error = helix("export", run.path, "--out", tmp_path / "out")
    assert code == 2, error
    assert said in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_neither_imported_nor_exported(value, saved, helix, tmp_path):
    from safetensors.numpy import load_file as load_arrays

    from helix_plugin_lm.storage.tensor_file import write_tensors

    assert helix("import", saved, "--out", tmp_path / "run")[0] == 0
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    params = load_arrays(checkpoint / "model.safetensors")
    params["embedding.weight"][3, 5] = value
    size, digest = write_tensors(checkpoint / "model.safetensors", params)
    # Of version 1, whose manifests had no hash of their own.
    manifest["files"]["model.safetensors"] = {"bytes": size, "blake2b": digest}
    del manifest["blake2b"]
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "version": 1}))
    code, _, error = helix("export", tmp_path / "run", "--out", tmp_path / "out")
    assert code == 1
    assert "embedding.weight holds NaN or infinity" in error
    weights = load_file(saved / "model.safetensors")
    weights["backbone.embeddings.weight"][3, 5] = value
    save_file(weights, saved / "model.safetensors", {"format": "pt"})
    code, _, error = helix("import", saved, "--out", tmp_path / "again")
    assert code == 1
    assert "embedding.weight holds NaN or infinity" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "saved"]


def test_weights_that_would_overflow_are_not_exported(saved, helix, tmp_path):
    weights = load_file(saved / "model.safetensors")
    weights["backbone.embeddings.weight"][3, 5] = 3.4e38
    save_file(weights, saved / "model.safetensors", {"format": "pt"})
    assert helix("import", saved, "--out", tmp_path / "run")[0] == 0
    for dtype in ("float16", "bfloat16"):
        code, _, error = helix("export", tmp_path / "run", "--out", tmp_path / "out", "--dtype", dtype)
        assert code == 1
        assert f"a weight is too large for {dtype}" in error
    assert not (tmp_path / "out").exists()
    assert helix("export", tmp_path / "run", "--out", tmp_path / "out", "--dtype", "float32")[0] == 0


def test_a_run_folder_with_links_is_not_exported(saved, helix, tmp_path):
    assert helix("import", saved, "--out", tmp_path / "run")[0] == 0
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "run" / "tokenizer.json").symlink_to(tmp_path / "secret")
    code, _, error = helix("export", tmp_path / "run", "--out", tmp_path / "out")
    assert code == 2
    assert "tokenizer.json is a symbolic link" in error
    assert not (tmp_path / "out").exists()


def test_import_needs_no_transformers(saved, tmp_path):
    """Neither transformers nor torch, for safetensors."""
    import subprocess
    import sys

    code = (
        "import sys\nfrom pathlib import Path\n"
        "from helix_plugin_huggingface.reading import import_checkpoint\n"
        f"import_checkpoint(Path({str(saved)!r}), Path({str(tmp_path / 'run')!r}))\n"
        "assert not {'transformers', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("rwkv", {"layer_norm_epsilon": 1e-3}, "the last norm has 1e-05"),
        ("rwkv", {"intermediate_size": 0}, "intermediate_size must be a whole number"),
        ("qwen3-next", {"layer_types": ["linear_attention", "mamba"]}, "layer_types must be 2 times"),
        ("qwen3-next", {"layer_types": ["linear_attention"]}, "layer_types must be 2 times"),
        ("qwen3-next", {"mlp_only_layers": "all"}, "mlp_only_layers must be a list"),
        ("qwen3-next", {"rope_parameters": {"rope_type": "yarn"}}, "rotary positions are not rescaled"),
        ("qwen3-next", {"rope_parameters": 3}, "rope_parameters must be a table"),
        ("qwen3-next", {"num_experts_per_tok": 9}, "more than there are experts"),
        ("qwen3-next", {"num_experts": 5}, "missing model.layers.0.mlp.experts.4.down_proj.weight"),
        ("qwen3-next", {"hidden_act": "gelu"}, "activation is silu"),
        ("qwen3-next", {"num_hidden_layers": 10**9, "layer_types": None}, "at most 2048 blocks"),
        ("qwen3-next", {"num_experts": 10**9}, "less than or equal to 65536"),
        ("qwen3-next", {"num_attention_heads": 3}, "must be a multiple of n_kv_heads"),
        ("rwkv", {"num_hidden_layers": 10**9}, "at most 2048 blocks"),
    ],
)
def test_configs_of_rwkv_and_qwen3_next_that_do_not_fit(kind, changes, message, tmp_path, helix):
    random_model(kind).save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text()) | changes
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    code, _, err = helix("import", tmp_path / "saved", "--out", tmp_path / "run")
    assert code == (1 if message.startswith("missing") else 2)  # a damaged checkpoint, or a wrong config
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mixer", "model", "message"),
    [
        ({"name": "gated_deltanet"}, {}, "blocks without an mlp; norm = 'rms_norm'; norms with different epsilons"),
        (
            [{"name": "gated_deltanet"}, {"name": "attention", "n_heads": 2, "window": 8}],
            {"mlp": {"name": "gelu_mlp"}, "norm": "zero_centered_rms_norm", "norm_eps": 1e-6},
            "the mlps gelu_mlp; attention with qk_norm = False; attention with gate = False; attention with window = 8",
        ),
        ({"name": "rwkv4"}, {}, "rwkv4_channel_mix in every block"),
        ({"name": "rwkv4"}, {"mlp": {"name": "rwkv4_channel_mix"}}, "of the embeddings too"),
    ],
)
def test_runs_that_are_no_rwkv_or_qwen3_next_are_not_exported(mixer, model, message):
    from helix_core.errors import UsageError
    from helix_plugin_huggingface.writing import family_for
    from helix_plugin_lm.models import ModelConfig

    config = ModelConfig.model_validate({"d_model": 8, "n_layers": 2, "mixer": mixer, **model})
    with pytest.raises(UsageError, match=message):
        family_for(config)


def test_tensors_of_multi_token_prediction_are_left_out(tmp_path, helix):
    random_model("qwen3-next-linear").save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "model.safetensors"
    save_file({**load_file(file), "mtp.fc.weight": torch.ones(3)}, file, {"format": "pt"})
    code, _, err = helix("import", tmp_path / "saved", "--out", tmp_path / "run")
    assert code == 0, err
