"""What ranks items: similarity, stability, levels; and what a sleep does to them."""

import numpy as np
import pytest

from helix_core import create
from helix_core.errors import MemoryStoreError, UsageError
from helix_plugin_topomemory.levels import fuse


def make(dim=16, **options):
    return create("memory", "topological", dim=dim, **options)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def practised(rng, count=400, dim=16, **options):
    """A memory in which some items were of use, after five sleeps."""
    memory, keys = make(dim, replays=0, **options), rng.normal(size=(count, dim))
    ids = memory.add(keys)
    for _ in range(5):
        memory.reinforce(np.repeat(ids[:20], 10))
        memory.reinforce(np.repeat(ids[20:40], 10), useful=False)
        memory.consolidate()
    return memory, keys, ids


@pytest.mark.parametrize("exact_below", [0, 10_000], ids=["index", "exact"])
@pytest.mark.parametrize("mix", [1.0, 0.9, 0.3, 0.0])
def test_scores_are_the_mix_of_cosine_and_stability(rng, mix, exact_below):
    memory, keys, ids = practised(rng, mix=mix, exact_below=exact_below)
    queries = rng.normal(size=(30, 16))
    expected = mix * unit(queries) @ unit(keys).T + (1 - mix) * memory.stability(ids)
    hits = memory.query(queries, 10)
    recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(hits.ids, np.argsort(-expected)[:, :10], strict=True)])
    assert recall >= 9.8 or mix == 0.0  # stabilities are equal too often for one order
    assert np.allclose(hits.scores, np.take_along_axis(expected, hits.ids, 1), atol=1e-5)
    assert np.allclose(hits.scores, -np.sort(-expected, axis=1)[:, :10], atol=1e-5) or exact_below == 0


def test_what_is_of_use_grows_stable_and_what_is_not_does_not(rng):
    memory, _, ids = practised(rng)
    used, useless, untouched = (memory.stability(ids[a:b]) for a, b in ((0, 20), (20, 40), (40, 400)))
    assert used.min() > untouched.max() > useless.min()
    assert used.min() > useless.max()


def test_links_lift_the_items_they_join(rng):
    memory = make(replays=0)
    ids = memory.add(rng.normal(size=(60, 16)))
    for _ in range(8):
        memory.associate(np.repeat(ids[:10], 12), np.repeat(ids[10:20], 12))
        memory.consolidate()
    assert memory.stability(ids[:20]).min() > memory.stability(ids[20:]).max()
    assert memory.links.neighbours(int(ids[3])).b.tolist() == [ids[13]]
    with pytest.raises(UsageError, match="not in the memory"):
        memory.associate([ids[0]], [999])


def test_a_sleep_merges_duplicates_of_equal_value_only(rng):
    memory, keys = make(), rng.normal(size=(50, 16))
    first = memory.add(keys, np.arange(50))
    memory.add(keys[:20], np.arange(20))
    other = memory.add(keys[20:30], np.arange(20, 30) + 500)
    assert memory.consolidate()["merged"] == 20
    assert len(memory) == 60
    hits = memory.query(keys, 1)
    assert np.array_equal(
        np.where(np.isin(hits.ids[:, 0], other), hits.values[:, 0] - 500, hits.values[:, 0]), range(50)
    )
    assert set(first.tolist()) <= set(memory.query(keys, 2).ids.ravel().tolist())


def test_a_full_memory_keeps_what_is_stable(rng):
    small = make(capacity=50, replays=0)
    keys = rng.normal(size=(400, 16))
    ids = small.add(keys)
    for _ in range(3):
        small.reinforce(np.repeat(ids[100:120], 10))
        small.consolidate()
    assert len(small) == 50
    assert np.isin(ids[100:120], small.query(keys[100:120], 1).ids).all()


def test_context_tells_apart_what_looks_alike(rng):
    """Items of the same look in different episodes: the item level alone has to guess, the levels together do not."""
    memory, looks = make(32, episode=8, exact_below=10_000), rng.normal(size=(10, 32))
    topics = rng.normal(size=(40, 32))
    truth = rng.integers(10, size=(40, 8))
    keys = topics[:, None] * 0.2 + looks[truth] + 0.05 * rng.normal(size=(40, 8, 32))
    ids = np.stack([memory.add(episode) for episode in keys])
    noisy = keys + 0.4 * rng.normal(size=keys.shape)
    context = noisy.mean(axis=1, keepdims=True) + np.zeros_like(noisy)
    queries, around = noisy.reshape(-1, 32), context.reshape(-1, 32)
    alone = np.mean(memory.query(queries, 1).ids[:, 0] == ids.ravel())
    together = np.mean(memory.query_levels(queries, 1, around).ids[:, 0] == ids.ravel())
    assert together > alone + 0.1


def test_cores_group_items_and_take_part(rng):
    memory, centres = make(8), 3 * rng.normal(size=(4, 8))
    truth = np.repeat(np.arange(4), 100)
    keys = centres[truth] + 0.3 * rng.normal(size=(400, 8))
    memory.add(keys, truth)
    found = memory.find_cores()
    assert found["cores"] == 4
    assert memory.stats()["cores"] == 4
    hits = memory.query_levels(keys[::10], 20)
    assert np.mean(hits.values == truth[::10, None]) > 0.95
    with pytest.raises(UsageError, match="too few"):
        make(8).find_cores()


def test_reciprocal_ranks():
    rows, scores = fuse([np.array([[3, 1, 2]]), np.array([[1, 5, -1]])], 4)
    assert rows.tolist() == [[1, 3, 5, 2]]
    assert np.allclose(scores[0, 0], 1 / 61 + 1 / 62)


def test_wrong_requests_are_refused(rng):
    memory = make()
    with pytest.raises(UsageError, match="k must"):
        memory.query(rng.normal(size=16), 0)
    with pytest.raises(UsageError, match="contexts"):
        memory.query_levels(rng.normal(size=(2, 16)), 3, rng.normal(size=(1, 16)))


def test_a_store_of_another_index_type_is_refused(rng, tmp_path):
    make(dtype="f32").save(tmp_path)
    with pytest.raises(MemoryStoreError, match="dtype"):
        make(dtype="bf16").load(tmp_path)


def test_the_links_and_the_sleeps_are_kept_too(rng, tmp_path):
    memory, _, ids = practised(rng)
    memory.associate(ids[:5].repeat(9), ids[5:10].repeat(9))
    memory.find_cores()
    memory.save(tmp_path)
    again = make(replays=0)
    again.load(tmp_path)
    assert again.stats() == memory.stats()
    assert again.consolidate() == memory.consolidate()
    assert np.array_equal(again.stability(ids), memory.stability(ids))
