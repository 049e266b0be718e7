"""Optimizers whose slots have shapes and names of their own: certified, trained and resumed bit by bit."""

import factored_and_orthogonal as written
import numpy as np
import pytest

from helix_core.errors import CheckpointError
from helix_core.plugin_system import Registry, create, explain, use_registry
from helix_core.plugin_system.settings import Settings
from helix_core.tree import tree_items
from helix_plugin_lm.runs.checkpoint import load_checkpoint
from helix_plugin_training.data import load_corpus
from helix_plugin_training.recipes import Recipe
from helix_plugin_training.trainer import Trainer
from helix_testing import BaseOptimizerTests
from helix_testing.optimizers import reference_table

SOURCE = "\n".join(
    [
        "@hookimpl",
        "def helix_optimizers():",
        "    return [",
        *(
            f"        OptimizerDescriptor(name='{name.lower()}', target='factored_and_orthogonal:{name}', summary='x',"
            f" config='factored_and_orthogonal:{name}Config'),"
            for name in ("Adafactor", "Muon")
        ),
        "    ]",
    ]
)


@pytest.fixture(autouse=True)
def installed(site):
    """Everything installed, and the two optimizers as a plugin of their own."""
    site.plugin("wide", SOURCE)
    with use_registry(Registry(Settings())):
        yield


class TestAdafactor(BaseOptimizerTests):
    optimizer = "wide/adafactor"
    config = {"lr": 3e-2}  # noqa: RUF012


class TestMuon(BaseOptimizerTests):
    optimizer = "wide/muon"
    config = {"lr": 3e-2, "adamw_scale": 1.0}  # noqa: RUF012


def test_slots_have_shapes_of_their_own():
    params = {"w": np.ones((3, 4)), "b": np.ones(4), "embedding.weight": np.ones((5, 4))}
    F = reference_table()

    def shapes(name):
        return {path: a.shape for path, a in tree_items(create("optimizer", name).init(F, params))}

    assert shapes("adafactor") == {
        "row.w": (3,),
        "row.embedding.weight": (5,),
        "column.w": (4,),
        "column.embedding.weight": (4,),
        "v.b": (4,),
    }
    assert shapes("muon") == {
        "momentum.w": (3, 4),
        "m.b": (4,),
        "v.b": (4,),
        "m.embedding.weight": (5, 4),
        "v.embedding.weight": (5, 4),
    }


def test_adafactor_is_the_papers(rng):
    """Against the factored estimate written out with outer products."""
    F, optimizer = reference_table(), create("optimizer", "adafactor", lr=0.1)
    p, gradients = rng.normal(size=(4, 6)), [rng.normal(size=(4, 6)) for _ in range(5)]
    params = {"w": p}
    state, R, C = optimizer.init(F, params), np.zeros(4), np.zeros(6)
    for t, g in enumerate(gradients, 1):
        params, state = optimizer.update(F, params, {"w": g}, state, lr=0.1, step=t)
        beta = 1 - t**-0.8
        R, C = (beta * a + (1 - beta) * (g**2).mean(axis) for a, axis in ((R, 1), (C, 0)))
        U = g / np.sqrt(np.outer(R, C) / R.mean())
        p = p - 0.1 * U / max(1.0, np.sqrt((U**2).mean()))
    assert np.allclose(params["w"], p, rtol=1e-9)


def test_muon_moves_along_the_orthogonal_factor(rng):
    g = rng.normal(size=(4, 6))
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    found = written.orthogonal(np, g)
    assert np.abs(np.linalg.svd(found)[1] - 1).max() < 0.35, "Newton-Schulz leaves singular values near one"
    assert np.sum(found * (u @ vt)) > 0.8 * 4


# Trained, killed and gone on with, where models train.

RECIPE = {
    "name": "slots",
    "seed": 3,
    "model": {"d_model": 16, "n_layers": 1, "mixer": {"name": "mingru"}},
    "data": {"source": "unused", "validation": 0.2},
    "training": {"steps": 12, "batch_size": 2, "seq_len": 16},
    "lr_schedule": {"name": "constant"},
}


@pytest.fixture
def trainer(tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(6):
        (tmp_path / "data" / f"{i}.txt").write_text(f"{i}: the quick brown fox jumps over the lazy dog\n" * 8)
    corpus = load_corpus(str(tmp_path / "data"), 0.2)

    def make(backend, optimizer, **parts):
        recipe = {**RECIPE, "backend": {"name": backend}, "optimizer": {"name": optimizer, "lr": 2e-2}, **parts}
        return Trainer(Recipe.model_validate(recipe), corpus)

    return make


@pytest.mark.parametrize("optimizer", ["wide/adafactor", "wide/muon"])
@pytest.mark.parametrize("backend", ["cpu/cpu", pytest.param("jax/jax", marks=pytest.mark.slow), "metal/metal"])
def test_a_run_learns_and_resumes_bit_by_bit(trainer, tmp_path, backend, optimizer):
    if explain("backend", backend, ["grad"]).component is None:
        pytest.skip(f"{backend} is not installed or does not run here")
    whole = trainer(backend, optimizer)
    losses = [whole.advance(12).loss for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0], losses
    first = trainer(backend, optimizer)
    for _ in range(5):
        first.advance(12)
    path = first.save(tmp_path / "checkpoints")
    second = trainer(backend, optimizer)
    second.restore(load_checkpoint(path), path)
    assert [second.advance(12).loss for _ in range(7)] == losses[5:]
    for kept, gone_on in ((whole.params, second.params), (whole.moments, second.moments)):
        expected, found = dict(tree_items(kept)), dict(tree_items(gone_on))
        assert list(expected) == list(found)
        for name, array in expected.items():
            assert array.dtype == found[name].dtype
            assert np.array_equal(whole.backend.to_numpy(array), second.backend.to_numpy(found[name])), name


def test_a_checkpoint_of_another_optimizer_is_refused_by_its_slots(trainer, tmp_path):
    path = trainer("cpu", "wide/muon").save(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing row/"):
        trainer("cpu", "wide/adafactor").restore(load_checkpoint(path), path)


def test_slots_keep_their_dtype(trainer, tmp_path, monkeypatch):
    """A slot of whole numbers comes back as whole numbers, one of no axes as one of no axes."""

    def init_slots(self, F, name, p):
        return {"row": F.asarray(np.array(7, np.int32)), "v": F.xp.zeros_like(p)}

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        count, v = moments
        return p - lr * g, (count + 1, v + g)

    monkeypatch.setattr(written.Adafactor, "init_slots", init_slots)
    monkeypatch.setattr(written.Adafactor, "step", step)
    first = trainer("cpu", "wide/adafactor")
    first.advance(12)
    path = first.save(tmp_path)
    second = trainer("cpu", "wide/adafactor")
    second.restore(load_checkpoint(path), path)
    for count in second.moments["row"].values():
        assert (str(count.dtype), int(count), count.shape) == ("torch.int32", 8, ())
