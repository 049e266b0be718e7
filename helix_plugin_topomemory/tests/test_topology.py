"""Motifs, cycles, cores and phase locking on data whose truth was planted."""

from itertools import pairwise

import numpy as np
import pytest

from helix_core.errors import UsageError
from helix_plugin_topomemory.topology import (
    bandpass,
    motif_cycles,
    period,
    periodicity,
    plv,
    plv_matrix,
    signal_motifs,
    stable_cores,
    symbol_motifs,
    wpli,
)
from helix_plugin_topomemory.topology import motifs as motifs_module

# M0


def planted_runs(rng, motifs, length, alphabet, share=0.03):
    out = []
    while len(out) < length:
        out.extend(motifs[rng.integers(len(motifs))] if rng.random() < share else [int(rng.integers(alphabet))])
    return np.array(out)


@pytest.mark.parametrize("seed", range(3))
def test_planted_runs_are_found_and_no_other(seed):
    rng = np.random.default_rng(seed)
    planted = [tuple(rng.integers(20, size=n).tolist()) for n in (3, 4, 5, 5, 6, 7)]
    found = {m.symbols for m in symbol_motifs(planted_runs(rng, planted, 20_000, 20))}
    assert len(found & set(planted)) >= 5
    assert found <= set(planted)


@pytest.mark.parametrize("seed", range(3))
def test_random_symbols_have_no_motif_and_a_chain_none_of_its_own_order(seed):
    rng = np.random.default_rng(seed)
    assert symbol_motifs(rng.integers(10, size=20_000)) == []
    chain = np.zeros(20_000, np.int64)
    jumps, steps = rng.random(20_000) < 0.5, rng.integers(10, size=20_000)
    for t in range(1, len(chain)):
        chain[t] = steps[t] if jumps[t] else (chain[t - 1] + 1) % 10
    assert symbol_motifs(chain, order=1) == []
    steps_found = {step for motif in symbol_motifs(chain, order=0) for step in pairwise(motif.symbols)}
    assert steps_found == {(symbol, (symbol + 1) % 10) for symbol in range(10)}


def test_places_and_counts_of_a_run():
    rng = np.random.default_rng(0)
    codes = rng.integers(50, size=2000)
    at = np.arange(0, 2000, 100)
    codes[at], codes[at + 1] = 60, 61
    (motif,) = symbol_motifs(codes)
    assert motif.symbols == (60, 61)
    assert np.array_equal(motif.places, at)
    assert motif.count == 20
    assert motif.expected == pytest.approx(20 * 20 / 2000)  # 60, twenty times, by the share of 61


def noisy_signal(rng, length=3000, shape=20, motifs=6, times=4):
    """Noise with random shapes laid over it at known places: (signal, places by motif)."""
    x = rng.normal(size=length)
    slots = rng.permutation(length // (2 * shape))[: motifs * times].reshape(motifs, times) * 2 * shape
    for places in slots:
        form = np.cumsum(rng.normal(size=shape))
        form = 5 * (form - form.mean()) / form.std()
        for place in places:
            x[place : place + shape] = form + 0.2 * rng.normal(size=shape) + rng.normal() * 4
    return x, slots


@pytest.mark.parametrize("seed", range(3))
def test_planted_shapes_are_found_and_no_other(seed):
    rng = np.random.default_rng(seed)
    x, slots = noisy_signal(rng)
    found = signal_motifs(x, 20)
    hit = set()
    for motif in found:
        owners = [np.abs(slots - place).min(axis=1).argmin() for place in motif.places]
        near = [np.abs(slots - place).min() for place in motif.places]
        assert max(near) < 10, "a motif away from every planted shape"
        assert len(set(owners)) == 1
        hit.add(owners[0])
    assert len(hit) >= 5


def test_noise_has_no_shapes(rng):
    # Chance lets one pair of a signal be closer than three others' closest one time in four; never many.
    assert sum(len(signal_motifs(rng.normal(size=1000), 20, surrogates=6)) for _ in range(4)) <= 6


@pytest.mark.slow
def test_the_matrix_profile_is_stumpys(rng, monkeypatch):
    x = np.cumsum(rng.normal(size=700))
    ours = motifs_module.matrix_profile(x, 30)
    monkeypatch.setattr(motifs_module, "EXACT", 0)
    theirs = motifs_module.matrix_profile(x, 30)
    assert np.allclose(ours[0], theirs[0], atol=1e-6)
    assert np.mean(ours[1] == theirs[1]) > 0.99


# M1


def test_a_ring_of_motifs_is_a_cycle_and_chance_is_none(rng):
    ring = np.array([4, 7, 2, 9])
    steps = [int(rng.integers(12)) if rng.random() < 0.2 else int(ring[k % 4]) for k in range(2000)]
    cycles = motif_cycles(np.array(steps))
    assert cycles[0].nodes == (2, 9, 4, 7)
    assert len(cycles) == 1
    assert motif_cycles(rng.integers(12, size=2000)) == []


def signals(rng, length=400, T=40):
    t = np.arange(length)
    sine = np.sin(2 * np.pi * t / T)
    return {
        "sine": sine,
        "noisy": sine + 0.3 * rng.normal(size=length),
        "square": np.sign(sine + 1e-9),
        "walk": np.cumsum(rng.normal(size=length)),
        "white": rng.normal(size=length),
        "trend": np.linspace(0, 1, length),
    }


def test_what_is_periodic_and_what_is_not(rng):
    made = signals(rng)
    score = {name: periodicity(x, 40) for name, x in made.items()}
    assert score["sine"] > 0.85
    assert min(score[name] for name in ("sine", "noisy", "square")) > 0.6
    assert max(score[name] for name in ("walk", "white", "trend")) < 0.6
    for name in ("sine", "noisy", "square"):
        assert abs(period(made[name]) - 40) <= 4  # the noise moves the peak by one now and then, rarely by two
    assert period(made["trend"]) is None


def test_periodic_signals_and_random_walks_are_separated_over_seeds():
    high, low = [], []
    for seed in range(10):
        made = signals(np.random.default_rng(seed))
        high.append(periodicity(made["noisy"], 40))
        low.append(periodicity(made["walk"], 40))
    assert min(high) > max(low)


# M2


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_are_the_cores(seed):
    rng = np.random.default_rng(seed)
    centres = np.array([(0, 0), (10, 0), (0, 10), (10, 10), (5, 18)])
    truth = np.repeat(np.arange(5), 150)
    points = np.concatenate([centres[truth] + 0.7 * rng.normal(size=(750, 2)), rng.uniform(-3, 21, size=(60, 2))])
    cores = stable_cores(points)
    assert cores.count == 5
    table = np.array([np.bincount(truth[cores.labels[:750] == c], minlength=5) for c in range(5)])
    assert table.max(axis=1).sum() / 750 >= 0.99


def test_one_cloud_is_one_core(rng):
    """But for one in twenty, whose noise looks like a second: eight of twenty would be one chance in 400,000."""
    assert sum(stable_cores(rng.normal(size=(400, 2))).count == 1 for _ in range(20)) >= 13


# Phase


def test_phase_locking(rng):
    t = np.arange(4000) / 1000
    a = np.sin(2 * np.pi * 10 * t)
    lagged = 3 * np.sin(2 * np.pi * 10 * t - np.pi / 2) + 0.1 * rng.normal(size=len(t))
    other = np.sin(2 * np.pi * 13 * t)
    assert plv(a, lagged) > 0.99
    assert wpli(a, lagged) > 0.99
    assert plv(a, other) < 0.1
    assert plv(a, a) == pytest.approx(1)
    assert wpli(a, a) == 0
    matrix = plv_matrix(np.stack([a, lagged, other]))
    assert np.allclose(np.diag(matrix), 1)
    assert matrix[0, 1] > 0.99
    assert matrix[0, 2] < 0.1
    assert np.allclose(matrix[0, 1], plv(a, lagged))


def test_a_band_keeps_what_lies_in_it():
    t = np.arange(4000) / 1000
    alpha, gamma = np.sin(2 * np.pi * 10 * t), np.sin(2 * np.pi * 50 * t)
    kept = bandpass(alpha + gamma, 8, 13, 1000)[500:-500]
    assert np.abs(kept - alpha[500:-500]).max() < 0.05


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: signal_motifs(bad, 8),
        lambda bad: period(bad),
        lambda bad: periodicity(bad, 8),
        lambda bad: plv(bad, bad),
        lambda bad: stable_cores(bad[:, None]),
    ],
)
def test_signals_that_are_not_finite_or_too_short_are_refused(call):
    bad = np.linspace(0, 1, 100)
    bad[3] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        call(bad)
    with pytest.raises(UsageError):
        call(np.ones(3))


def test_codes_that_are_no_integers_are_refused():
    for call in (symbol_motifs, motif_cycles):
        with pytest.raises(UsageError, match="integers"):
            call([0.5, 1.0])
