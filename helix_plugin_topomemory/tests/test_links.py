"""U/I/S links: the formula, planted associations, forgetting, hysteresis, caps, bounds."""

import math

import numpy as np
import pytest
from planted import associations, stream

from helix_core.errors import UsageError
from helix_plugin_topomemory.links import LinkConfig, LinkGraph, State
from helix_plugin_topomemory.links.table import evidence

NODES = 300


@pytest.mark.parametrize("seed", range(10))
def test_planted_associations_become_stable_and_removed_ones_are_forgotten(seed):
    rng = np.random.default_rng(seed)
    pairs = associations(rng, NODES, 30)
    wanted, gone = ({tuple(p) for p in some.tolist()} for some in (pairs, pairs[:10]))
    graph = LinkGraph()
    for _ in range(15):
        graph.observe_sequence(stream(rng, pairs, NODES, 6000), window=2)
        graph.advance()
    stable = graph.links(State.S).pairs()
    assert len(stable & wanted) / len(stable) >= 0.99
    assert len(stable & wanted) / 30 >= 0.95
    for _ in range(60):
        graph.observe_sequence(stream(rng, pairs[10:], NODES, 6000), window=2)
        graph.advance()
    stable = graph.links(State.S).pairs()
    assert not stable & gone
    assert len(stable & (wanted - gone)) / 20 >= 0.95
    assert len(stable & wanted) / len(stable) >= 0.99


def test_random_streams_make_no_stable_link(rng):
    graph = LinkGraph()
    for _ in range(20):
        graph.observe_sequence(rng.integers(100, size=5000), window=2)
        graph.advance()
    assert len(graph.links(State.S)) == 0


def test_stability_is_the_formula(rng):
    """One link followed by hand through growth and decay, against the graph."""
    c = LinkConfig(min_count=1.0, g2=0.0)
    graph = LinkGraph(c)
    n = r = na = nb = total = s = 0.0
    state = State.CANDIDATE
    for step in range(30):
        times, other = (6, 20) if step < 12 else (0, 3)
        graph.observe([1] * times, [2] * times)
        graph.observe([3] * other, [4] * other)
        n, r = n + times, min(r + times, 3 * c.n0)
        na, nb, total = na + times, nb + times, total + times + other
        p = (n + c.prior * na * nb / total**2) / (total + c.prior)
        npmi = math.log(p / (na / total * nb / total)) / -math.log(p)
        signals = (c.weight_r, 1 - math.exp(-r / c.n0)), (c.weight_e, max(0, npmi)), (c.weight_c, n / na)
        if state is not State.CANDIDATE:
            s = c.inertia * s + (1 - c.inertia) * sum(w * x for w, x in signals) / sum(w for w, _ in signals)
        found, _ = graph.find([1], [2])
        graph.advance()
        found, now = graph.find([1], [2])
        assert found[0] == pytest.approx(s, abs=1e-5)
        state = State(now[0])
        r *= c.decay[state]
        n, na, nb, total = (x * 0.5 ** (1 / c.half_life_evidence) for x in (n, na, nb, total))
    assert state is State.S


def test_evidence_against_scipy(rng):
    from scipy.stats import chi2_contingency

    for _ in range(50):
        t = rng.integers(1, 200, size=(2, 2))
        npmi, g2, c = evidence(t[0, 0], t[0].sum(), t[:, 0].sum(), t.sum(), 0.0)
        expected = chi2_contingency(t, correction=False, lambda_="log-likelihood").statistic
        assert g2 == pytest.approx(expected, rel=1e-9, abs=1e-9)
        p, q = t[0, 0] / t.sum(), t[0].sum() * t[:, 0].sum() / t.sum() ** 2
        assert npmi == pytest.approx(math.log(p / q) / -math.log(p), rel=1e-9)
        assert c == pytest.approx(t[0, 0] / t[0].sum())


def test_stability_stays_between_0_and_1_for_any_stream(rng):
    graph = LinkGraph(LinkConfig(min_count=0, g2=0, link_npmi=-1))
    for size in (1, 7, 4000, 1, 1):
        a = rng.integers(5, size=size)
        graph.observe(a, (a + rng.integers(2, size=size)) % 5)
        graph.set_phase(a[:1], a[:1], [1.0])
        for _ in range(9):
            graph.advance()
        s = graph.links(State.CANDIDATE).stability
        assert ((s >= 0) & (s <= 1)).all()


def test_phase_locking_lifts_a_link():
    with_phase, without = LinkGraph(), LinkGraph()
    for step in range(10):
        for graph in (with_phase, without):
            graph.observe([0] * 20 + [1] * 10, [9] * 20 + [8] * 10)
        if not step:
            with_phase.set_phase([0, 77], [9, 78], [1.0, 1.0])
        with_phase.advance()
        without.advance()
    assert with_phase.find([0], [9])[0] > without.find([0], [9])[0]
    assert with_phase.find([1], [8])[0] == without.find([1], [8])[0]


def test_hysteresis_and_dwell_keep_links_from_flapping():
    """A link whose evidence wavers around a threshold changes state far less often with both than with neither."""

    def states(**options):
        graph, noise = (
            LinkGraph(LinkConfig(min_count=1, g2=0, half_life_evidence=2, **options)),
            np.random.default_rng(3),
        )
        for _ in range(400):
            times = 3 if noise.random() < 0.5 else 12
            graph.observe([1] * times + [1] * 14 + [3] * 30, [2] * times + [5] * 14 + [4] * 30)
            graph.advance()
            yield tuple(x[0] for x in graph.find([1], [2]))

    middle = float(np.median([s for s, _ in states()]))
    around = {"theta_low": middle - 0.2, "theta_high": middle}
    bare, held = (
        np.count_nonzero(np.diff([int(state) for _, state in states(**around, **options)][20:]))
        for options in ({"hysteresis": 0.0, "dwell": 0}, {})
    )
    assert bare > 20
    assert held < bare / 4


def test_rehearsal_repeats_but_gives_no_evidence():
    graph, plain = LinkGraph(), LinkGraph()
    for g in (graph, plain):
        g.observe([0] * 6 + [1] * 50, [5] * 6 + [6] * 50)
    graph.rehearse([0] * 9 + [70], [5] * 9 + [71])
    assert len(graph) == len(plain) == 2
    assert np.array_equal(graph.links(State.CANDIDATE).count, plain.links(State.CANDIDATE).count)
    for _ in range(3):
        graph.advance()
        plain.advance()
    assert graph.find([0], [5])[0] > plain.find([0], [5])[0]


def test_caps_hold_for_every_node(rng):
    graph = LinkGraph(LinkConfig(cap_u=3, cap_i=2, cap_s=1, min_count=1, g2=0, link_npmi=-1, theta_low=0.05))
    for _ in range(12):
        a = np.repeat(np.arange(10), 40)
        graph.observe(a, rng.integers(10, 30, size=len(a)))
        graph.advance()
        links = graph.links()
        for state, cap in ((State.U, 3), (State.I, 2 + 1), (State.S, 1)):
            # A link taken from S to I, or from I to U, is counted there at the next tick.
            counts = np.bincount(links.a[links.state == state], minlength=1)
            assert counts.max() <= cap


def test_the_graph_stays_within_its_bound_and_keeps_the_strong(rng):
    graph = LinkGraph(LinkConfig(max_links=5000))
    for _ in range(8):
        graph.observe(rng.integers(100_000, size=20_000), rng.integers(100_000, size=20_000))
        graph.observe([1] * 50, [2] * 50)
        graph.advance()
        assert len(graph) <= 5000
    assert graph.find([1], [2])[1][0] == State.S


def test_growth_loses_nothing(rng):
    a, b = rng.integers(3000, size=200_000), rng.integers(3000, size=200_000)
    graph = LinkGraph()
    for part in np.array_split(np.arange(len(a)), 37):
        graph.observe(a[part], b[part])
    pairs, counts = np.unique(np.stack([a, b], 1), axis=0, return_counts=True)
    links = graph.links(State.CANDIDATE)
    assert len(graph) == len(links) == len(pairs)
    assert np.array_equal(np.stack([links.a, links.b], 1), pairs)
    assert np.array_equal(links.count, counts)


def test_neighbours_come_strongest_first_and_nodes_can_be_forgotten(rng):
    graph = LinkGraph()
    for _ in range(6):
        graph.observe([1] * 30 + [1] * 10 + [7] * 40, [2] * 30 + [3] * 10 + [8] * 40)
        graph.advance()
    assert graph.neighbours(1).b.tolist() == [2, 3]
    assert graph.forget_nodes([2]) == 1
    assert graph.neighbours(1).b.tolist() == [3]
    assert graph.neighbours(99).b.tolist() == []


def test_arrays_bring_the_same_graph_back(rng):
    graph = LinkGraph()
    codes = stream(rng, associations(rng, 50, 5), 50, 4000)
    graph.observe_sequence(codes, 2)
    graph.advance()
    again = LinkGraph.from_arrays(graph.config, graph.arrays())
    for g in (graph, again):
        g.observe_sequence(codes, 2)
        g.advance()
    for name in ("a", "b", "stability", "state", "count"):
        assert np.array_equal(getattr(graph.links(), name), getattr(again.links(), name))
    assert graph.stats()["ticks"] == again.stats()["ticks"]


@pytest.mark.parametrize(
    ("a", "b"), [([-1], [2]), ([1.5], [2]), ([2**31 - 1], [0]), ([1, 2], [3]), ([[1]], [[2]]), (["x"], [1])]
)
def test_wrong_nodes_are_refused_and_change_nothing(a, b):
    graph = LinkGraph()
    graph.observe([1], [2])
    with pytest.raises(UsageError):
        graph.observe(a, b)
    assert len(graph) == graph.observed == 1


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="theta_low"):
        LinkConfig(theta_low=0.5, theta_high=0.4)
    with pytest.raises(UsageError, match="phase"):
        LinkGraph().set_phase([1], [2], [float("nan")])
