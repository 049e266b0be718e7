"""From a selected component to an object."""

import pytest

import helix_core
from helix_core import ComponentUnavailable, ConfigError
from helix_core.plugin_system import use_registry

TARGET = """
import sys
from pydantic import BaseModel, ConfigDict

class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dropout: float = 0.0

class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    d_model: int
    d_state: int = 16
    inner: Inner = Inner()

class Lax(BaseModel):
    d_model: int = 1

class Layer:
    def __init__(self, config):
        self.config = config

def plain():
    return "built"

def exits():
    sys.exit("no licence")

def refuses():
    raise helix_core.DataError("no data here")

import helix_core
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
    source = "@hookimpl\ndef helix_codecs():\n    return [\n"
    for name, target in {
        "plain": "fake_target:plain",
        "exits": "fake_target:exits",
        "refuses": "fake_target:refuses",
        "torn": "fake_torn:Codec",
        "missing": "fake_target:absent",
    }.items():
        source += f"        CodecDescriptor(name={name!r}, target={target!r}, summary=''),\n"
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
    assert helix_core.create("codec", "plain") == "built"
    with pytest.raises(ConfigError, match=r"codec 'two/plain' takes no options, but got 'size'"):
        helix_core.create("codec", "plain", size=3)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("torn", ["'two/torn'", "installed but broken", "fake_torn:Codec", "libfoo.so.1", "fake_torn.py:1"]),
        ("missing", ["'two/missing'", "installed but broken", "fake_target:absent"]),
        ("exits", ["'two/exits'", "cannot be created", "it called sys.exit('no licence')"]),
    ],
)
def test_code_that_does_not_import_or_run(layers, name, parts):
    with pytest.raises(ComponentUnavailable) as error:
        helix_core.create("codec", name)
    for part in parts:
        assert part in str(error.value)
    assert error.value.__cause__ is not None
    assert "pip install" not in str(error.value)


def test_an_error_that_helix_understands_is_passed_on(layers):
    with pytest.raises(helix_core.DataError, match="no data here"):
        helix_core.create("codec", "refuses")


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
