"""Tensor files: those of the safetensors library, and no other bytes."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_core.errors import CheckpointError
from helix_plugin_lm.storage.tensor_file import of_array, open_tensors, write_tensors

ARRAYS = {
    "b": np.arange(3, dtype=np.float16),
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(2.5),
    "empty": np.empty((0, 3), np.float32),
    "int": np.arange(5, dtype=np.int8),
}


def test_the_library_reads_what_we_write_and_the_other_way_round(tmp_path):
    from safetensors.numpy import load_file, save_file

    write_tensors(tmp_path / "ours", ARRAYS, {"format": "pt"})
    save_file(ARRAYS, tmp_path / "theirs")
    read = {name: tensor.numpy() for name, tensor in open_tensors(tmp_path / "theirs").items()}
    for found in (load_file(tmp_path / "ours"), read):
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_bfloat16_is_read_as_float32_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    values = torch.tensor([1.0, -3.1415, 1e-40, float("inf"), float("nan"), 2.0**100]).to(torch.bfloat16)
    save_file({"x": values}, tmp_path / "file")
    np.testing.assert_array_equal(open_tensors(tmp_path / "file")["x"].numpy(), values.float().numpy())


def test_reading_holds_one_tensor(tmp_path):
    """Tensors are arrays only once they are asked for."""
    import tracemalloc

    write_tensors(tmp_path / "file", {str(i): np.zeros(250_000, np.float32) for i in range(8)})
    tracemalloc.start()
    tensors = open_tensors(tmp_path / "file")
    write_tensors(tmp_path / "copy", tensors)
    for tensor in tensors.values():
        tensor.numpy()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5e6


@given(draw=st.data())
def test_damaged_files_are_refused(draw, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "file"
    write_tensors(path, {"a": of_array(np.arange(6, dtype=np.float32)), "b": np.ones((2, 2), np.float16)})
    whole = path.read_bytes()
    at = draw.draw(st.integers(0, len(whole) - 1))
    damaged = draw.draw(
        st.sampled_from([whole[:at], whole[:at] + b"\xff" + whole[at + 1 :], whole + b"\0", whole[at:]])
        | st.binary(max_size=200)
        | st.binary(max_size=100).map(lambda tail: len(tail).to_bytes(8, "little") + tail)
    )
    path.write_bytes(damaged)
    with contextlib.suppress(CheckpointError):  # nothing else may be raised
        for tensor in open_tensors(path).values():
            assert tensor.numpy().shape == tensor.shape


def test_a_file_cut_short_after_it_was_opened_is_an_error_and_not_the_end_of_the_process(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": np.ones((4, 4), np.float32), "b": np.ones(70_000, np.float32)})
    tensors = open_tensors(path)
    with path.open("r+b") as file:
        file.truncate(200)
    with pytest.raises(CheckpointError, match="cut short"):
        tensors["b"].numpy()
