"""Layers as torch modules, for those who know torch and nothing of Helix."""

import copy
import inspect
import io
import pickle
import pydoc
import re

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from helix_core import components, create
from helix_core.errors import ComponentUnavailable, ConfigError, UsageError
from helix_plugin_torch import nn as layers
from helix_plugin_torch.backend import TorchBackend
from helix_plugin_torch.nn import HelixLayer, Hyena, Mamba, MoE

# torch's compiler itself uses what torch deprecates, on its first import.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

D, L, B = 64, 6, 2
NAMES = [name for name in layers.__all__ if name != "HelixLayer"]
every_layer = pytest.mark.parametrize("made", [getattr(layers, name) for name in NAMES], ids=NAMES)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return torch.randn(B, L, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trained(module, x, target, steps=4):
    """The losses of a few steps of Adam."""
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = (module(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def descends(module, x, target):
    losses = trained(module, x, target)
    return losses[-1] < losses[0]


def test_every_layer_of_the_house_has_a_class():
    shipped = {c.descriptor.name for c in components("layer") if c.plugin in ("ssm", "hyena", "blocks", "topomemory")}
    assert shipped == {getattr(layers, name).layer for name in NAMES}
    assert set(dir(layers)) == {*NAMES, "HelixLayer"}


@every_layer
def test_it_trains(made, x):
    assert descends(made(D), x, torch.randn(B, L, D))


@every_layer
def test_steps_give_what_the_whole_gives(made, x):
    module = made(D).eval()
    whole, state, found = module(x), module.init_state(B), []
    for t in range(L):
        y, state = module.step(x[:, t] if t % 2 else x[:, t : t + 1], state)
        found.append(y if t % 2 else y[:, 0])
    torch.testing.assert_close(torch.stack(found, 1), whole, atol=1e-5, rtol=1e-4)


@every_layer
def test_a_prompt_then_steps(made, x):
    module = made(D).eval()
    whole = module(x)
    y, state = module(x[:, : L - 1], state=module.init_state(B))
    last, _ = module.step(x[:, L - 1], state)
    torch.testing.assert_close(torch.cat([y, last[:, None]], 1), whole, atol=1e-5, rtol=1e-4)


@every_layer
def test_copies_are_equal_and_independent(made, x):
    module = made(D)
    expected = module(x)
    fresh = made(D)
    fresh.load_state_dict(module.state_dict())
    for twin in (fresh, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(twin) is made
        assert torch.equal(twin(x), expected)
        with torch.no_grad():
            next(twin.parameters()).zero_()
        assert torch.equal(module(x), expected)


def test_it_is_loaded_where_its_device_is_not(x, monkeypatch):
    """As with `map_location`: the ops that served it elsewhere stay there."""
    bind, module = TorchBackend.bind, Mamba(D)

    def bind_elsewhere(backend, **options):
        table = bind(backend, **options)
        table.bound_by = lambda: None  # which pickle refuses
        return table

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(TorchBackend, "bind", bind_elsewhere)
        with torch.autocast("cpu", torch.bfloat16):
            assert module(x).dtype == torch.bfloat16
        with pytest.raises((AttributeError, pickle.PicklingError)):
            pickle.dumps(bind_elsewhere(create("backend", "cpu")))
    found = pickle.loads(pickle.dumps(module))
    assert torch.equal(found(x), module(x))


@every_layer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_it_goes_to_a_dtype(made, x, dtype):
    module = made(D)
    expected = module(x).detach()
    y = module.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
    if made is not MoE:  # which experts come first is a choice that rounding may turn
        tolerance = 1e-5 if dtype == torch.float64 else 0.05 * float(expected.abs().max())
        torch.testing.assert_close(y.float(), expected, atol=tolerance, rtol=0)
    assert made(D, dtype=dtype)(x.to(dtype)).dtype == dtype


def test_the_short_ways_to_half_precision(x):
    assert Mamba(D).half()(x.half()).dtype == torch.float16
    assert Mamba(D).bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert Mamba(D)(x).dtype == torch.bfloat16


def test_defaults_of_torch_are_the_defaults():
    torch.set_default_dtype(torch.float64)
    try:
        assert Mamba(D).A_log.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_come_from_the_generator_of_torch():
    first, second = Mamba(D), Mamba(D)
    torch.manual_seed(0)
    again = Mamba(D)
    assert torch.equal(first.in_proj.weight, again.in_proj.weight)
    assert not torch.equal(first.in_proj.weight, second.in_proj.weight)


def test_dropout_is_of_training_only(x):
    module, plain = Mamba(D, dropout=0.5), Mamba(D)
    module.load_state_dict(plain.state_dict())
    expected = plain(x)
    y = module(x)
    assert 0.3 < (y == 0).float().mean() < 0.7
    torch.testing.assert_close(y[y != 0], 2 * expected[y != 0])
    assert not torch.equal(module(x), y)
    assert torch.equal(module.eval()(x), expected)
    with pytest.raises(ValueError, match="dropout"):
        Mamba(D, dropout=2.0)


def test_documents_and_padding(x):
    module = Mamba(D)
    reset = torch.zeros(B, L, dtype=torch.bool)
    reset[:, 2] = True
    torch.testing.assert_close(module(x, reset)[:, 2:], module(x[:, 2:]))
    longer = torch.cat([x, torch.full((B, 3, D), torch.nan)], 1)
    padded = module(longer, lengths=torch.full((B,), L))
    torch.testing.assert_close(padded[:, :L], module(x))


def test_experts_give_their_loss(x):
    module = MoE(D, n_experts=4, balance=0.5)
    y, loss = module(x, return_loss=True)
    assert torch.equal(y, module(x))
    gate = module.get_parameter("gate.weight")
    loss.backward()
    assert gate.grad.abs().sum() > 0
    with torch.no_grad():
        gate.zero_()  # an even gate, whose loss is least: `balance`
    torch.testing.assert_close(module(x, return_loss=True)[1], torch.tensor(0.5))
    with pytest.raises(UsageError, match="state"):
        module(x, state=module.init_state(B), return_loss=True)


def test_options_are_checked_and_shown():
    with pytest.raises(ConfigError, match=r"'d_stat'; did you mean 'd_state'"):
        Mamba(D, d_stat=8)
    with pytest.raises(TypeError, match="positional"):
        Mamba(D, 16)
    with pytest.raises(ComponentUnavailable, match="int8"):
        Mamba(D, dtype=torch.int8)
    found = inspect.signature(Mamba).parameters
    assert (found["d_state"].default, found["d_state"].annotation) == (16, int)
    assert [*found][-3:] == ["dropout", "device", "dtype"]
    assert "d_state=8" in repr(Mamba(D, d_state=8))
    text = pydoc.plain(pydoc.render_doc(Mamba))
    assert re.search(r"Mamba\(d_model: int, \*, d_state: int = 16, ", text)
    assert re.search(r"d_state=16 +states per channel, N", text)


def test_help_needs_no_plugin():
    class EMA(HelixLayer):
        layer = "not_installed"

    assert "no layer named 'not_installed' is installed" in pydoc.plain(pydoc.render_doc(EMA))
    assert "d_model" in inspect.signature(EMA).parameters


@pytest.mark.parametrize("shape", [(B, L), (B, L, D + 1), (L, B, L, D)])
def test_a_wrong_shape_is_refused(shape):
    with pytest.raises(UsageError, match=rf"Mamba takes \(B, L, {D}\)"):
        Mamba(D)(torch.randn(shape))


def test_a_step_is_one_step(x):
    module = Mamba(D)
    with pytest.raises(UsageError, match="state="):
        module.step(x, module.init_state(B))


def test_a_device_without_a_backend_is_named():
    with pytest.raises(ComponentUnavailable, match="'mps'"):
        Mamba(D, device="mps")


def test_made_without_values_and_given_them_later(x):
    with torch.device("meta"):
        module = Mamba(D)
    assert all(p.is_meta for p in module.parameters())
    assert module(x.to("meta")).shape == x.shape
    module.to_empty(device="cpu")
    torch.manual_seed(0)
    module.reset_parameters()
    torch.manual_seed(0)
    assert torch.equal(module(x), Mamba(D)(x))


def test_a_class_for_a_layer_of_another_plugin(x):
    class SameMamba(HelixLayer):
        layer = "ssm/mamba"

    torch.manual_seed(0)
    found = SameMamba(D, d_state=4)
    torch.manual_seed(0)
    assert torch.equal(found(x), Mamba(D, d_state=4)(x))


def test_layers_are_parts_of_models(x):
    model = torch.nn.Sequential(torch.nn.LayerNorm(D), Mamba(D), torch.nn.Linear(D, D), Hyena(D, l_max=16))
    assert "1.in_proj.weight" in model.state_dict()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), model(x))
    assert descends(model, x, torch.randn(B, L, D))


@pytest.mark.parametrize("made", [Mamba, layers.GLA])
def test_it_compiles_whole(made, x):
    module = made(D)
    compiled = torch.compile(module, fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x), atol=1e-5, rtol=1e-4)
    compiled(x).square().mean().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_it_is_exported(x):
    module = Mamba(D).eval()
    length = torch.export.Dim("length", min=2, max=512)
    program = torch.export.export(module, (x,), dynamic_shapes={"x": {1: length}})
    longer = torch.randn(B, 3 * L, D)
    torch.testing.assert_close(program.module()(longer), module(longer), atol=1e-5, rtol=1e-4)


def test_data_parallel(process_group, x):
    module = Mamba(D)
    expected = module(x)
    parallel = DistributedDataParallel(module)
    assert torch.equal(parallel(x), expected)
    assert descends(parallel, x, torch.randn(B, L, D))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_fully_sharded(process_group, x, dtype):
    module, target = Mamba(D), torch.randn(B, L, D)
    expected = trained(copy.deepcopy(module), x, target)
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=dtype))
    assert isinstance(module.in_proj.weight, DTensor)
    losses = trained(module, x, target)
    assert losses == pytest.approx(expected, rel=1e-6 if dtype is None else 0.02)
    assert losses[-1] < losses[0]
    y, _ = module.step(x[:, 0], module.init_state(B))
    assert y.shape == (B, D)


def test_sharded_before_it_has_values(process_group, x):
    with torch.device("meta"):
        module = Mamba(D)
    fully_shard(module, mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
    module.to_empty(device="cpu")
    torch.manual_seed(0)
    module.reset_parameters()
    torch.manual_seed(0)
    torch.testing.assert_close(module(x), Mamba(D)(x))
