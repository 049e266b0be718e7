"""From a selected component to an object."""

import pytest

import helix_core
from helix_core import ComponentUnavailable, ConfigError
from helix_core.plugin_system import check, use_registry
from helix_core.plugin_system.descriptors import DESCRIPTORS
from helix_core.plugin_system.refs import load_ref

TARGET = """
import sys

import helix_core
from pydantic import BaseModel, ConfigDict

class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dropout: float = 0.0

class Config(helix_core.LayerConfig):
    d_state: int = 16
    inner: Inner = Inner()

class Lax(BaseModel):
    d_model: int = 1

class Layer(helix_core.Layer):
    def param_specs(self):
        return {}

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        return x, state

class Plain(helix_core.Backend):
    name = namespace = "plain"
    xp = None
    asarray = to_numpy = staticmethod(lambda array: array)

def exits():
    sys.exit("no licence")

def refuses():
    raise helix_core.DataError("no data here")
"""


@pytest.fixture
def layers(site):
    site.layers(
        "one",
        "name='l', config='fake_target:Config'",
        "name='lax', config='fake_target:Lax'",
        "name='no-model', config='fake_target:Layer'",
        "name='gone', config='fake_target:Configuration'",
        fake_target=TARGET + "build = Layer\n",
    )
    source = "@hookimpl\ndef helix_backends():\n    return [\n"
    for name, target in {
        "plain": "fake_target:Plain",
        "exits": "fake_target:exits",
        "refuses": "fake_target:refuses",
        "torn": "fake_torn:Backend",
        "missing": "fake_target:absent",
    }.items():
        source += f"        BackendDescriptor(name={name!r}, target={target!r}, summary=''),\n"
    site.plugin("two", source + "    ]\n", fake_torn="raise ImportError('libfoo.so.1: cannot open')")
    with use_registry(site.registry()):
        yield site


def test_the_options_become_the_components_config(layers):
    layer = helix_core.create("layer", "l", d_model=8, inner={"dropout": 0.5})
    assert (layer.config.d_model, layer.config.d_state, layer.config.inner.dropout) == (8, 16, 0.5)


def test_every_wrong_option_is_listed_with_its_path_and_nearest_match(layers):
    with pytest.raises(ConfigError) as error:
        helix_core.create("layer", "l", d_modell=8, d_state="many", inner={"droput": 1})
    text = str(error.value)
    assert "layer 'one/l' has wrong options:" in text
    assert "missing option 'd_model'" in text
    assert "unknown option 'd_modell'; did you mean 'd_model'?" in text
    assert "unknown option 'inner.droput'; did you mean 'dropout'?" in text
    assert "d_state: Input should be a valid integer" in text
    assert "(got 'many')" in text
    assert "helix describe layer l" in text


def test_a_component_without_options(layers):
    assert helix_core.create("backend", "plain").name == "plain"
    with pytest.raises(ConfigError, match=r"backend 'two/plain' takes no options, but got 'size'"):
        helix_core.create("backend", "plain", size=3)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("torn", ["'two/torn'", "installed but broken", "fake_torn:Backend", "libfoo.so.1", "fake_torn.py:1"]),
        ("missing", ["'two/missing'", "installed but broken", "fake_target:absent"]),
        ("exits", ["'two/exits'", "cannot be created", "it called sys.exit('no licence')"]),
    ],
)
def test_code_that_does_not_import_or_run(layers, name, parts):
    with pytest.raises(ComponentUnavailable) as error:
        helix_core.create("backend", name)
    for part in parts:
        assert part in str(error.value)
    assert error.value.__cause__ is not None
    assert "pip install" not in str(error.value)


def test_an_error_that_helix_understands_is_passed_on(layers):
    with pytest.raises(helix_core.DataError, match="no data here"):
        helix_core.create("backend", "refuses")


@pytest.mark.parametrize(
    ("name", "problem"),
    [("lax", 'extra="forbid"'), ("no-model", "not a pydantic model"), ("gone", "cannot be imported")],
)
def test_a_config_that_would_let_mistakes_pass_is_refused(layers, name, problem):
    with pytest.raises(ComponentUnavailable, match=problem):
        helix_core.create("layer", name, d_model=1)


def test_nothing_is_imported_before_it_is_created(layers):
    helix_core.explain("layer", "l")
    helix_core.components()
    assert not layers.imported("target")
    helix_core.create("layer", "l", d_model=1)
    assert layers.imported("target")


# What is created is what its kind says.

BY_KIND = {cls.kind: cls for cls in DESCRIPTORS if cls.contract is not None}
STRANGE = """
import click
from pydantic import BaseModel, ConfigDict
from helix_core.kinds.backend import Backend
from helix_core.kinds.generator import GeneratorConfig
from helix_core.kinds.layer import LayerConfig
from helix_core.kinds.memory import MemoryConfig
from helix_core.kinds.optimizer import OptimizerConfig
from helix_core.kinds.lr_schedule import LRScheduleConfig

class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

class Strange:
    def __init__(self, *config):
        pass

def make(*config):
    return Strange()

def nothing(*config):
    return None

class Nameless(Backend):
    xp = None
    asarray = to_numpy = staticmethod(lambda array: array)
"""


@pytest.fixture
def strange(site):
    """Install a plugin with one component of a kind, in its registry."""

    def install(kind, **fields):
        cls = BY_KIND[kind]
        hook = {"memory": "memories"}.get(kind, f"{kind}s")
        options = "".join(f", {key}={value!r}" for key, value in fields.items())
        source = f"@hookimpl\ndef helix_{hook}():\n    return [{cls.__name__}(name='odd', summary=''{options})]\n"
        site.plugin("strange", source, fake_strange_parts=STRANGE)
        return use_registry(site.registry())

    return install


@pytest.mark.parametrize("target", ["Strange", "make", "nothing"])
@pytest.mark.parametrize("kind", BY_KIND)
def test_what_is_none_of_its_kind_is_refused(strange, kind, target):
    with strange(kind, target=f"fake_strange_parts:{target}") as registry:
        with pytest.raises(ComponentUnavailable) as error:
            helix_core.create(kind, "odd")
        contract = load_ref(BY_KIND[kind].contract)
        assert f"no {contract.__module__}.{contract.__qualname__}" in str(error.value)
        assert "a fault of plugin 'strange'" in str(error.value)
        if target == "Strange":
            with pytest.raises(ComponentUnavailable, match="is no "):
                check(registry.components(kind)[0])


@pytest.mark.parametrize("kind", [kind for kind, cls in BY_KIND.items() if cls.config_contract])
def test_a_config_that_lacks_what_its_kind_needs_is_refused(strange, kind):
    base = BY_KIND[kind].contract
    wanted = BY_KIND[kind].config_contract.partition(":")[2]
    with (
        strange(kind, target=base, config="fake_strange_parts:Config") as registry,
        pytest.raises(ComponentUnavailable, match=rf"is no .*{wanted}"),
    ):
        check(registry.components(kind)[0])


def test_a_backend_without_a_namespace_is_refused(strange):
    with (
        strange("backend", target="fake_strange_parts:Nameless"),
        pytest.raises(ComponentUnavailable, match=r"has no 'name' and no 'namespace', which every .*Backend has"),
    ):
        helix_core.create("backend", "odd")


def test_kernels_and_commands_are_what_their_targets_name(site):
    command = "CommandDescriptor(name='c', target='fake_parts:command', summary='')"
    kernels = [
        f"KernelDescriptor(name={n!r}, target='fake_parts:{n}', summary='', op='silu', namespace='numpy')" for n in "kn"
    ]
    source = f"@hookimpl\ndef helix_kernels():\n    return [{', '.join(kernels)}]\n"
    source += f"@hookimpl\ndef helix_commands():\n    return [{command}]\n"
    parts = "import click\ncommand = click.Command('c')\ndef k(x):\n    return x\nn = 7\n"
    site.plugin("one", source, fake_parts=parts)
    with use_registry(site.registry()):
        assert helix_core.create("command", "c").name == "c"
        assert helix_core.create("kernel", "k")(3) == 3
        with pytest.raises(ComponentUnavailable, match=r"it is a builtins\.int, which cannot be called"):
            helix_core.create("kernel", "n")
