"""Ways to launch kernels are tried once for a card and a shape class, and remembered."""

import json

import pytest
import torch

from helix_plugin_cuda.kernels import _tune
from helix_plugin_cuda.kernels._tune import Choices, chosen

WAYS = ({"channels": 128}, {"channels": 64}, {"channels": 32})


class Clock:
    """Times by way; counts what it timed."""

    def __init__(self, times):
        self.times, self.timed = times, []

    def __call__(self, function):
        way = function()
        self.timed.append(way["channels"])
        return self.times[way["channels"]]


def test_the_fastest_is_kept_and_remembered(tmp_path):
    clock = Clock({128: 3.0, 64: 1.0, 32: 2.0})
    file = tmp_path / "deeper" / "card.json"
    assert Choices(file, "now").best("scan 8", WAYS, lambda way: way, clock) == {"channels": 64}
    assert clock.timed == [128, 64, 32]
    assert Choices(file, "now").best("scan 8", WAYS, lambda way: way, clock) == {"channels": 64}
    assert len(clock.timed) == 3
    assert list(file.parent.iterdir()) == [file]


def test_another_shape_another_version_and_a_way_that_is_gone_are_timed_anew(tmp_path):
    clock = Clock({128: 3.0, 64: 1.0, 32: 2.0})
    file = tmp_path / "card.json"
    Choices(file, "now").best("scan 8", WAYS, lambda way: way, clock)
    Choices(file, "now").best("scan 16", WAYS, lambda way: way, clock)
    Choices(file, "later").best("scan 8", WAYS, lambda way: way, clock)
    assert Choices(file, "later").best("scan 8", WAYS[:1], lambda way: way, clock) == {"channels": 128}
    assert len(clock.timed) == 10


def test_a_way_that_does_not_fit_is_passed_over(tmp_path):
    def run(way):
        if way["channels"] == 128:
            raise RuntimeError("out of shared memory")
        return way

    choices = Choices(tmp_path / "card.json", "now")
    assert choices.best("scan", WAYS, run, Clock({64: 2.0, 32: 1.0})) == {"channels": 32}

    def fail(way):
        raise RuntimeError("no way works")

    with pytest.raises(RuntimeError, match="no way works"):
        choices.best("other", WAYS, fail, Clock({}))


def test_a_spoiled_file_is_said_and_tuned_over(tmp_path):
    file = tmp_path / "card.json"
    file.write_text("{")
    with pytest.warns(RuntimeWarning, match="tuned anew"):
        choices = Choices(file, "now")
    with pytest.warns(RuntimeWarning, match="tuned anew"):
        choices.best("scan", WAYS, lambda way: way, Clock({128: 1.0, 64: 2.0, 32: 3.0}))
    assert json.loads(file.read_text())["choices"] == {"scan": '{"channels": 128}'}


def test_processes_do_not_forget_each_others_findings(tmp_path):
    file, clock = tmp_path / "card.json", Clock({128: 1.0, 64: 2.0, 32: 3.0})
    one, two = Choices(file, "now"), Choices(file, "now")
    one.best("a", WAYS, lambda way: way, clock)
    two.best("b", WAYS, lambda way: way, clock)
    assert set(Choices(file, "now").known) == {"a", "b"}


@pytest.mark.skipif(not _tune.INTERPRETED, reason="a card is here")
def test_the_interpreter_takes_the_first_way():
    assert chosen("scan", (8,), WAYS, lambda way: pytest.fail("it was run")) == WAYS[0]


def test_every_way_computes_the_same(rng, monkeypatch):
    """What tuning chooses among, on one input each."""
    from helix_plugin_cuda.kernels import (
        _fused_recurrent,
        _recurrence,
        causal_conv1d,
        diagonal_ssm,
        linear_scan,
        rwkv7,
        selective_scan,
        wkv4,
    )

    compared = {}

    def compare(kernel, shape_class, ways, run):
        first = run(ways[0])
        for way in ways[1:]:
            assert all(torch.allclose(f, o, atol=1e-5) for f, o in zip(first, run(way), strict=True))
        compared[kernel] = ways
        return ways[0]

    for module in (_fused_recurrent, _recurrence, causal_conv1d, rwkv7):
        monkeypatch.setattr(module, "chosen", compare)

    def tensor(*shape):
        return torch.from_numpy(rng.normal(size=shape)).float().to("cpu" if _tune.INTERPRETED else "cuda")

    x = tensor(1, 9, 40)
    a = torch.sigmoid(tensor(1, 9, 40))
    linear_scan.forward(a, x)
    causal_conv1d.forward(x, tensor(40, 4), activation="silu")
    selective_scan.forward(x, a, -torch.exp(tensor(40, 4)), tensor(1, 9, 4), tensor(1, 9, 4))
    diagonal_ssm.forward(x, -torch.exp(tensor(40, 4, 2)), tensor(40, 4, 2))
    wkv4.forward(x, a, -a[0, 0], a[0, 0])
    r, k, v, mover, adder = (tensor(1, 18, 1, 40) / 4 for _ in range(5))
    heads = (r, -torch.exp(r), k, v, mover, adder)
    rwkv7.forward(*heads)
    rwkv7.forward(*(array[:, :2] for array in heads))
    assert compared == {
        "linear_scan": linear_scan.WAYS,
        "causal_conv1d": causal_conv1d.WAYS,
        "selective_scan": selective_scan.WAYS,
        "diagonal_ssm": diagonal_ssm.WAYS,
        "wkv4": wkv4.WAYS,
        "rwkv7": rwkv7.WAYS,
        "a few steps": _fused_recurrent.WAYS,
    }
