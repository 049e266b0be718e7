"""Checkpoints: whole or absent, verified when read."""

import errno
import json
import os

import numpy as np
import pytest

from helix_core.errors import CheckpointError
from helix_plugin_lm.runs import checkpoint as module
from helix_plugin_lm.runs.checkpoint import (
    check_params,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)

PARAMS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([np.pi])}
MOMENTS = {"m/a.weight": np.ones((2, 3), np.float32), "m/b": np.zeros(1, np.float32)}


def save(folder, step=1):
    return save_checkpoint(folder, step, PARAMS, MOMENTS, {"train_seconds": 1.5})


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path):
    loaded = load_checkpoint(save(tmp_path, 7))
    assert loaded.step == 7
    assert loaded.metadata == {"train_seconds": 1.5}
    for expected, found in ((PARAMS, loaded.params), (MOMENTS, loaded.moments)):
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[k], found[k]) for k in expected)


def test_the_newest_is_found_and_old_ones_pruned(tmp_path):
    for step in (1, 20, 3):
        save(tmp_path, step)
    assert latest_checkpoint(tmp_path).name == "step-00000020"
    prune_checkpoints(tmp_path, 2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003", "step-00000020"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "absent"])
def test_damage_is_found(tmp_path, name, damage):
    path = save(tmp_path)
    data = (path / name).read_bytes()
    if damage == "absent":
        (path / name).unlink()
    elif damage == "truncated":
        (path / name).write_bytes(data[: len(data) // 2])
    else:
        # In the manifest, a changed hash; in a tensor file, a changed value.
        old, new = (b'"blake2b": "', b'"blake2b": "0') if name == "manifest.json" else (data[-3:], b"\x12\x34\x56")
        (path / name).write_bytes(data.replace(old, new))
    with pytest.raises(CheckpointError, match=r"damaged|not a Helix checkpoint|cannot read"):
        load_checkpoint(path)


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"format": "other"}', b"\xff\xff"])
def test_a_foreign_folder_is_refused(tmp_path, manifest):
    (tmp_path / "manifest.json").write_bytes(manifest)
    with pytest.raises(CheckpointError, match="not a Helix checkpoint"):
        load_checkpoint(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    first = save(tmp_path, 1)
    write = module.write_tensors

    def full(path, tensors):
        if path.name == "optimizer.safetensors":
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, tensors)

    monkeypatch.setattr(module, "write_tensors", full)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        save(tmp_path, 2)
    assert first.name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert load_checkpoint(first).step == 1


def test_a_real_full_disk(tmp_path):
    """A tmpfs of 64 KiB, where this user may mount one."""
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        save(disk, 1)
        big = {"w": np.zeros(100_000, np.float32)}
        with pytest.raises(CheckpointError, match="No space left"):
            save_checkpoint(disk, 2, big, {}, {})
        assert [path.name for path in disk.iterdir()] == ["step-00000001"]
        assert load_checkpoint(disk / "step-00000001").step == 1
    finally:
        subprocess.run(["umount", disk], check=True)


def test_leftovers_of_a_killed_save_are_cleared(tmp_path):
    leftover = tmp_path / ".writing-step-00000001-99999"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_parameters_that_do_not_fit_are_named(tmp_path):
    shapes = {"a.weight": (3, 2), "c": (1,)}
    with pytest.raises(CheckpointError) as caught:
        check_params(PARAMS, shapes, tmp_path)
    text = str(caught.value)
    assert "missing c" in text
    assert "unexpected b" in text
    assert "a.weight is (2, 3), the model has (3, 2)" in text


def test_the_manifest_is_readable_json(tmp_path):
    manifest = json.loads((save(tmp_path, 4) / "manifest.json").read_text())
    assert manifest["step"] == 4
    assert set(manifest["files"]) == {"model.safetensors", "optimizer.safetensors"}


def test_a_manifest_is_taken_to_the_letter(tmp_path):
    """Another last digit of a float may be the same number: what was written is not what is there all the same."""
    path = save_checkpoint(tmp_path, 1, PARAMS, MOMENTS, {"train_seconds": 2.0**53})
    file = path / "manifest.json"
    text = file.read_text()
    assert float("9007199254740992.1") == 2.0**53
    file.write_text(text.replace("9007199254740992.0", "9007199254740992.1"))
    with pytest.raises(CheckpointError, match="does not match its hash"):
        load_checkpoint(path)
    file.write_text(text)
    assert load_checkpoint(path).metadata == {"train_seconds": 2.0**53}


def test_slots_may_be_whole_numbers(tmp_path):
    slots = {"count/b": np.array([3], np.int32)}
    loaded = load_checkpoint(save_checkpoint(tmp_path, 1, PARAMS, slots, {}))
    assert loaded.moments["count/b"].dtype == np.int32
