"""The shipped optimizers: the kit, and the papers' rules against other implementations."""

import numpy as np
import pytest

from helix_core import create
from helix_plugin_training.optimizers import clip_by_global_norm
from helix_testing import BaseOptimizerTests
from helix_testing.optimizers import reference_table


class TestAdamW(BaseOptimizerTests):
    optimizer = "adamw"
    config = {"lr": 3e-2}  # noqa: RUF012


class TestLion(BaseOptimizerTests):
    optimizer = "lion"
    config = {"lr": 1e-2}  # noqa: RUF012


class TestSGD(BaseOptimizerTests):
    optimizer = "sgd"
    config = {"lr": 5e-2}  # noqa: RUF012


def trajectory(optimizer, start, gradients, lr):
    F = reference_table()
    params = {"p": start}
    state = optimizer.init(F, params)
    for step, g in enumerate(gradients, 1):
        params, state = optimizer.update(F, params, {"p": g}, state, lr=lr, step=step)
    return params["p"]


@pytest.fixture
def problem(rng):
    return rng.normal(size=(4, 5)), [rng.normal(size=(4, 5)) for _ in range(20)]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_is_torchs(problem, decay):
    torch = pytest.importorskip("torch")
    start, gradients = problem
    p = torch.nn.Parameter(torch.from_numpy(start.copy()))
    reference = torch.optim.AdamW([p], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
    for g in gradients:
        p.grad = torch.from_numpy(g)
        reference.step()
    found = trajectory(create("optimizer", "adamw", weight_decay=decay), start, gradients, 0.01)
    assert np.allclose(found, p.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(problem, nesterov):
    torch = pytest.importorskip("torch")
    start, gradients = problem
    p = torch.nn.Parameter(torch.from_numpy(start.copy()))
    reference = torch.optim.SGD([p], lr=0.01, momentum=0.9, nesterov=nesterov)
    for g in gradients:
        p.grad = torch.from_numpy(g)
        reference.step()
    found = trajectory(create("optimizer", "sgd", nesterov=nesterov), start, gradients, 0.01)
    assert np.allclose(found, p.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_lion_is_the_papers(problem):
    start, gradients = problem
    p, m = start.copy(), np.zeros_like(start)
    for g in gradients:
        update = np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
        p = p - 0.01 * (update + 0.2 * p)
    found = trajectory(create("optimizer", "lion", weight_decay=0.2), start, gradients, 0.01)
    assert np.allclose(found, p, rtol=1e-10, atol=1e-12)


def test_clipping_scales_to_the_norm_and_no_further(rng):
    grads = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=7)}
    norm = float(np.sqrt(sum(np.sum(g**2) for g in grads.values())))
    clipped, found = clip_by_global_norm(np, grads, norm / 2)
    assert float(found) == pytest.approx(norm)
    assert np.sqrt(sum(np.sum(g**2) for g in clipped.values())) == pytest.approx(norm / 2, rel=1e-5)
    same, _ = clip_by_global_norm(np, grads, norm * 2)
    assert all(np.array_equal(same[k], grads[k]) for k in grads)
