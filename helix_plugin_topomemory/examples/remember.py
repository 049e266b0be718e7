"""A memory that is used: it stores, answers, learns what was of use, sleeps, and survives on disk.

python helix_plugin_topomemory/examples/remember.py
"""

import tempfile

import numpy as np

from helix_core import create

rng = np.random.default_rng(0)
memory = create("memory", "topological", dim=32, mix=0.9)

# Two hundred places, each seen from a few sides: keys are views, values the places.
places = rng.normal(size=(200, 32))
seen = rng.integers(200, size=1000)
ids = memory.add(places[seen] + 0.4 * rng.normal(size=(1000, 32)), seen)

# Asking: the nearest items vote.
view = places[17] + 0.4 * rng.normal(size=32)
hits = memory.query(view, k=5)
print("values found:", hits.values[0], "scores:", hits.scores[0].round(2))

# Using: what was right is reinforced, and one thing leads to another.
for _ in range(6):
    memory.reinforce(hits.ids[0], useful=hits.values[0] == 17)
    memory.associate(np.repeat(ids[:5], 8), np.repeat(ids[5:10], 8))
    report = memory.consolidate()
print("stability:", memory.stability(hits.ids[0]).round(2), "of others:", round(memory.stats()["mean_stability"], 2))
print("links out of item", ids[0], "lead to", memory.links.neighbours(int(ids[0])).b)

# Keeping: a save is all or nothing.
with tempfile.TemporaryDirectory() as folder:
    memory.save(folder)
    again = create("memory", "topological", dim=32, mix=0.9)
    again.load(folder)
    assert np.array_equal(again.query(view, 5).ids, memory.query(view, 5).ids)
print("items:", len(again), "after forgetting:", len(again) - again.forget(hits.ids[0]))
