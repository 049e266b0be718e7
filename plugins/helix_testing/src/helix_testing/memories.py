"""The memory kit: retrieval against exact search, forgetting, bad input, and stores that lose nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from helix_core.errors import ConfigError, InUse, MemoryStoreError, UsageError
from helix_core.kinds.memory import Memory
from helix_core.lock import FolderLock
from helix_core.plugin_system import create


class BaseMemoryTests:
    """Set `memory` to its name and `config` to its options, `dim` among them (8 or more).

    recall  least share of the ten nearest keys by cosine that a fresh memory of 2000 items must find
    """

    memory: ClassVar[str] = ""
    config: ClassVar[Mapping[str, Any]] = {}
    recall: ClassVar[float] = 0.95

    def make(self, **options: Any) -> Memory[Any]:
        """The memory, with options over those of `config`."""
        made: Memory[Any] = create("memory", self.memory, **{**self.config, **options})
        return made

    @property
    def dim(self) -> int:
        """Numbers of a key."""
        return int(self.config["dim"])

    def filled(self, rng: np.random.Generator, count: int = 50) -> tuple[Memory[Any], np.ndarray, np.ndarray]:
        """A memory of `count` random items, their keys and their ids."""
        memory, keys = self.make(), rng.normal(size=(count, self.dim)).astype(np.float32)
        return memory, keys, memory.add(keys, np.arange(count) + 1000)

    # What it finds.

    def test_unknown_options_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="no_such_option"):
            self.make(no_such_option=1)

    def test_an_empty_memory_finds_nothing(self, rng: np.random.Generator) -> None:
        hits = self.make().query(rng.normal(size=(2, self.dim)), 3)
        assert hits.ids.shape == hits.scores.shape == hits.values.shape == (2, 3)
        assert (hits.ids == -1).all()
        assert np.isneginf(hits.scores).all()

    def test_what_was_stored_is_found_first(self, rng: np.random.Generator) -> None:
        memory, keys, ids = self.filled(rng)
        assert len(memory) == memory.stats()["items"] == len(set(ids.tolist())) == 50
        hits = memory.query(keys, 5)
        assert np.array_equal(hits.ids[:, 0], ids)
        assert np.array_equal(hits.values[:, 0], np.arange(50) + 1000)
        assert (np.diff(hits.scores, axis=1) <= 0).all()

    def test_values_are_the_ids_unless_given(self, rng: np.random.Generator) -> None:
        memory = self.make()
        keys = rng.normal(size=(5, self.dim))
        ids = memory.add(keys)
        assert np.array_equal(memory.query(keys, 1).values[:, 0], ids)

    def test_one_key_may_stand_alone(self, rng: np.random.Generator) -> None:
        memory = self.make()
        key = rng.normal(size=self.dim)
        (first,) = memory.add(key)
        assert memory.query(key, 1).ids.tolist() == [[first]]

    def test_more_asked_for_than_there_is(self, rng: np.random.Generator) -> None:
        memory, keys, ids = self.filled(rng, 3)
        hits = memory.query(keys[:1], 5)
        assert set(hits.ids[0, :3].tolist()) == set(ids.tolist())
        assert hits.ids[0, 3:].tolist() == hits.values[0, 3:].tolist() == [-1, -1]

    def test_recall_against_exact_search(self, rng: np.random.Generator) -> None:
        memory, keys, ids = self.filled(rng, 2000)
        queries = rng.normal(size=(100, self.dim)).astype(np.float32)
        unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
        nearest = ids[np.argsort(-(queries @ unit.T), axis=1)[:, :10]]
        found = memory.query(queries, 10).ids
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(nearest, found, strict=True)])
        assert recall >= self.recall

    def test_asking_changes_nothing(self, rng: np.random.Generator) -> None:
        memory, keys, _ = self.filled(rng)
        first, again = memory.query(keys + 0.1, 4), memory.query(keys + 0.1, 4)
        assert np.array_equal(first.ids, again.ids)
        assert np.array_equal(first.scores, again.scores)

    def test_answers_have_the_types_that_they_should(self, rng: np.random.Generator) -> None:
        memory, keys, ids = self.filled(rng)
        hits = memory.query(keys, 3)
        found = [str(a.dtype) for a in (ids, hits.ids, hits.scores, hits.values)]
        assert found == ["int64", "int64", "float32", "int64"]

    def test_values_are_kept_to_the_last_bit(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, keys = self.make(), rng.normal(size=(4, self.dim))
        values = np.array([2**62 + 1, -(2**63), 2**31 + 1, -7])
        memory.add(keys, values)
        assert memory.query(keys, 1).values[:, 0].tolist() == values.tolist()
        memory.save(tmp_path)
        again = self.make()
        again.load(tmp_path)
        assert again.query(keys, 1).values[:, 0].tolist() == values.tolist()

    def test_what_it_holds_is_its_own(self, rng: np.random.Generator) -> None:
        """Neither the keys and values that it was given nor its answers are its own memory."""
        keys = rng.normal(size=(6, self.dim)).astype(np.float32)
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        values, asked = np.arange(6) + 100, keys.copy()
        memory = self.make()
        ids = memory.add(keys, values)
        before = memory.query(asked, 3)
        expected: list[Any] = [a.copy() for a in (before.ids, before.scores, before.values)]
        for array in (keys, values, ids, before.ids, before.scores, before.values):
            if array.flags.writeable:
                array[...] = 0
        after = memory.query(asked, 3)
        for old, new in ((expected[0], after.ids), (expected[1], after.scores), (expected[2], after.values)):
            assert np.array_equal(old, new), "writing to what it was given or gave changed what it holds"

    def test_keys_may_lie_anyhow_in_memory(self, rng: np.random.Generator) -> None:
        keys = rng.normal(size=(10, 2 * self.dim)).astype(np.float32)[::-1, ::2]
        memory, packed = self.make(), self.make()
        memory.add(keys)
        packed.add(np.ascontiguousarray(keys))
        assert np.array_equal(memory.query(keys, 3).ids, packed.query(np.ascontiguousarray(keys), 3).ids)

    # What it gives up.

    def test_what_is_forgotten_is_gone(self, rng: np.random.Generator) -> None:
        memory, keys, ids = self.filled(rng)
        assert memory.forget(ids[:20]) == 20
        assert memory.forget(ids[:20]) == 0
        assert len(memory) == 30
        hits = memory.query(keys, 50)
        assert not np.isin(hits.ids, ids[:20]).any()
        assert np.array_equal(hits.ids[20:, 0], ids[20:])
        assert (hits.ids[:, 30:] == -1).all()

    def test_ids_are_never_given_twice(self, rng: np.random.Generator) -> None:
        memory, keys, ids = self.filled(rng)
        memory.forget(ids)
        assert len(memory) == 0
        assert not np.isin(memory.add(keys), ids).any()

    def test_ids_are_never_given_twice_after_a_reload_either(self, rng: np.random.Generator, tmp_path: Path) -> None:
        """A value may point at an item that is gone: its id must not come to mean another."""
        for gone in (slice(None), slice(-10, None)):
            memory, keys, ids = self.filled(rng)
            memory.forget(ids[gone])
            memory.save(tmp_path / f"store {gone.start}")
            for again in (self.make(), memory):
                again.load(tmp_path / f"store {gone.start}")
                assert not np.isin(again.add(keys), ids).any(), "an id of before the save was given again"

    def test_an_id_named_twice_is_one_item(self, rng: np.random.Generator) -> None:
        memory, _, ids = self.filled(rng)
        assert memory.forget([ids[0], ids[0], -5, ids[1]]) == 2
        assert len(memory) == 48

    def test_it_still_answers_after_a_sleep(self, rng: np.random.Generator) -> None:
        memory, keys, _ = self.filled(rng)
        report = memory.consolidate()
        assert all(isinstance(name, str) for name in report)
        json.dumps(report)
        hits = memory.query(keys, 3)
        assert len(memory) == memory.stats()["items"] > 0
        assert (hits.ids[:, 0] >= 0).all()

    # What it refuses.

    @pytest.mark.parametrize("bad", [np.nan, np.inf], ids=["nan", "infinity"])
    def test_keys_that_are_not_finite(self, rng: np.random.Generator, bad: float) -> None:
        memory, keys, _ = self.filled(rng)
        wrong = keys.copy()
        wrong[7, 3] = bad
        for call in (memory.add, memory.query):
            with pytest.raises(UsageError, match="row 7"):
                call(wrong)
        assert len(memory) == 50

    def test_keys_of_another_width_or_values_of_another_length(self, rng: np.random.Generator) -> None:
        memory, keys, _ = self.filled(rng)
        for wrong in (keys[:, :-1], keys[None], "text"):
            with pytest.raises(UsageError, match="keys must"):
                memory.add(wrong)
        for values in (np.arange(3), np.linspace(0, 1, 50)):
            with pytest.raises(UsageError, match="values must"):
                memory.add(keys, values)
        assert len(memory) == 50

    # What is on disk.

    def test_a_store_gives_back_everything(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, keys, ids = self.filled(rng)
        memory.consolidate()
        memory.save(tmp_path / "store")
        again = self.make()
        again.add(keys[:3])
        again.load(tmp_path / "store")
        first, second = memory.query(keys, 5), again.query(keys, 5)
        assert np.array_equal(first.ids, second.ids)
        assert np.array_equal(first.values, second.values)
        assert np.allclose(first.scores, second.scores, atol=1e-6)
        assert memory.stats()["items"] == again.stats()["items"]
        assert not np.isin(again.add(keys), ids).any()

    def test_saving_changes_nothing(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, keys, ids = self.filled(rng)
        memory.save(tmp_path)
        assert np.array_equal(memory.query(keys, 1).ids[:, 0], ids)
        assert not np.isin(memory.add(keys), ids).any()

    def test_a_second_save_replaces_the_first(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, keys, _ = self.filled(rng)
        memory.save(tmp_path)
        memory.add(keys)
        memory.save(tmp_path)
        again = self.make()
        again.load(tmp_path)
        assert len(again) == len(memory)

    def test_a_damaged_store_is_refused(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, keys, ids = self.filled(rng)
        store = tmp_path / "store"
        memory.save(store)
        for file in sorted(p for p in store.rglob("*") if p.is_file()):
            whole = file.read_bytes()
            flipped = bytearray(whole)
            flipped[len(whole) // 2] ^= 1
            for damage in (whole[:-1], b"", bytes(flipped)):
                file.write_bytes(damage)
                with pytest.raises(MemoryStoreError):
                    memory.load(store)
                assert np.array_equal(memory.query(keys, 1).ids[:, 0], ids), "the content is kept"
            file.write_bytes(whole)
        memory.load(store)
        with pytest.raises(MemoryStoreError):
            memory.load(tmp_path / "nowhere")

    def test_a_store_of_another_width_is_refused(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, _, _ = self.filled(rng)
        memory.save(tmp_path)
        with pytest.raises(MemoryStoreError, match="dim"):
            self.make(dim=self.dim + 1).load(tmp_path)

    def test_what_another_writer_saved_is_not_overwritten(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, keys, _ = self.filled(rng)
        memory.save(tmp_path)
        other = self.make()
        other.load(tmp_path)
        other.add(keys[:1])
        other.save(tmp_path)
        with pytest.raises(MemoryStoreError, match="another writer"):
            memory.save(tmp_path)
        again = self.make()
        again.load(tmp_path)
        assert len(again) == len(other) == 51
        memory.load(tmp_path)
        memory.save(tmp_path)

    def test_two_writers_at_once(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, _, _ = self.filled(rng)
        memory.save(tmp_path)
        with FolderLock(tmp_path, "the memory"), pytest.raises(InUse, match=f"process {os.getpid()} "):
            memory.save(tmp_path)
        memory.save(tmp_path)

    def test_a_store_with_links_is_refused(self, rng: np.random.Generator, tmp_path: Path) -> None:
        memory, _, ids = self.filled(rng)
        memory.save(tmp_path / "store")
        (tmp_path / "store" / "odd").symlink_to(tmp_path)
        for use in (memory.load, memory.save):
            with pytest.raises(MemoryStoreError, match="symbolic link"):
                use(tmp_path / "store")
        assert len(memory) == len(ids)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_killed_save_and_a_full_disk_lose_nothing(self, rng: np.random.Generator, tmp_path: Path) -> None:
        request = {
            "memory": self.memory,
            "config": dict(self.config),
            "folder": str(tmp_path),
            "seed": int(rng.integers(2**31)),
        }
        done = subprocess.run(
            [sys.executable, "-m", "helix_testing.memory_faults"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert set(report["sizes"]) <= {30, 50}, "after a kill: the store of before, or the new one"
        assert report["sizes"][0] == 30
        assert report["sizes"][-1] == 50
        assert report["full"]["error"], "a save to a full disk must raise MemoryStoreError"
        assert report["full"]["size"] == 30
        assert report["full"]["kept"] == 50
