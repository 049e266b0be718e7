"""Sizes that no machine has room for are refused before anything of that size is made."""

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from helix_core.errors import ConfigError, HelixError, NotEnoughMemory
from helix_core.kinds.shapes import initial_state
from helix_core.machine import available_memory, require_memory
from helix_core.plugin_system import components, create
from helix_plugin_lm.generation import Stopping, beam_search
from helix_plugin_lm.models import LanguageModel, ModelConfig

HUGE = 2**31
LAYERS = sorted(c.full_name for c in components("layer"))
OPTIONS = [
    ("ssm/mamba", {"d_state": HUGE}),
    ("ssm/mamba", {"d_conv": HUGE, "dt_rank": HUGE}),
    ("ssm/mamba2", {"d_state": HUGE}),
    ("ssm/s4d", {"d_state": HUGE}),
    ("ssm/s4d", {"d_state": HUGE, "init": "real"}),
    ("ssm/gated_deltanet", {"d_key": HUGE}),
    ("hyena/hyena", {"l_max": HUGE}),
    ("hyena/hyena_recurrent", {"modes": HUGE}),
    ("blocks/attention", {"max_length": HUGE}),
]


@pytest.fixture
def frugal():
    """The test must take less than 4 MiB."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


def model(**changes):
    config = {"vocab_size": 256, "d_model": 8, "n_layers": 2, "mixer": {"name": "mamba", "d_state": 2}}
    return LanguageModel(ModelConfig.model_validate({**config, **changes}))


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_layer_has_is_known_before_it_is_made(name):
    layer = create("layer", name, d_model=2**22)
    tracemalloc.start()
    sizes = [np.prod(spec.shape, dtype=object) for spec in layer.param_specs().values()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(sizes) >= 2**22
    assert peak < 2**22


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value))
def test_no_option_takes_memory_by_itself(name, options, frugal):
    layer = create("layer", name, d_model=64, **options)
    assert layer.cost(2048).parameters == sum(math.prod(spec.shape) for spec in layer.param_specs().values())
    assert sum(array.size for array in initial_state(layer)) == layer.cost(1).state_bytes // 4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("moe", {"n_experts": HUGE}),
        ("s4", {"d_state": HUGE}),
        ("hyena", {"order": HUGE}),
        ("hyena", {"filter_inner_mlps": HUGE}),
    ],
)
def test_options_whose_work_grows_faster_than_their_memory_have_bounds(name, options):
    with pytest.raises(ConfigError, match="less than or equal to"):
        create("layer", name, d_model=64, **options)


def test_a_state_is_as_large_as_it_is_said_to_be():
    F = create("backend", "core/reference").bind(mode="infer")
    for name in LAYERS:
        layer = create("layer", name, d_model=64)
        made = [(array.shape, array.dtype) for array in map(np.asarray, leaves(layer.init_state(F, 1)))]
        assert [(array.shape, array.dtype) for array in initial_state(layer)] == made


def leaves(state):
    from helix_core.tree import tree_items

    return [leaf for _, leaf in tree_items(state)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_model": HUGE}, "parameters needs at least .* TiB of memory, and .* are available"),
        ({"vocab_size": 10**12}, "parameters needs at least"),
        ({"mixer": {"name": "mamba", "d_state": 10**9}, "d_model": 512}, "parameters needs at least"),
        ({"mlp": {"name": "moe", "n_experts": 2**16}, "n_layers": 1000}, "parameter tensors already"),
        ({"mixer": {"name": "mamba", "d_model": 9}}, "as wide as the model"),
    ],
)
def test_models_that_no_machine_holds(changes, words, monkeypatch):
    monkeypatch.setattr("helix_plugin_lm.models.language_model.MOST_TENSORS", 10_000)
    with pytest.raises(HelixError, match=words):
        model(**changes).init(0)


def test_the_number_of_layers_has_a_bound():
    with pytest.raises(ValueError, match="less than or equal to 2048"):
        ModelConfig(d_model=8, n_layers=10**9, mixer={"name": "mamba"})


def test_states_and_beams_that_no_machine_holds():
    backend = create("backend", "core/reference")
    F = backend.bind(mode="infer")
    small = model()
    assert small.state_bytes == sum(leaf.nbytes for leaf in leaves(small.init_state(F, 1)))
    with pytest.raises(NotEnoughMemory, match="the state of 1,000,000,000,000 rows needs at least"):
        small.init_state(F, 10**12)
    attention = model(mixer={"name": "attention", "max_length": 2**40})
    with pytest.raises(NotEnoughMemory, match="the state of 1 rows"):
        backend.decoder(attention, F, attention.init(0))
    with pytest.raises(NotEnoughMemory, match="a search with 1,000,000,000,000 beams"):
        beam_search(small, backend, F, small.init(0), b"", num_beams=10**12, stopping=Stopping(max_tokens=3))


def test_a_refusal_names_both_numbers_and_an_unknown_machine_refuses_nothing():
    with pytest.raises(NotEnoughMemory, match=r"this needs at least 1\.5 GiB of memory, and 1 GiB are available"):
        require_memory(3 * 2**29, 2**30, "this")
    require_memory(2**30, 2**30, "this")
    require_memory(2**90, None, "this")


MEMINFO = "MemTotal: 16000 kB\nMemAvailable:    8000 kB\nSwapFree: 1000 kB\n"


@pytest.mark.parametrize(
    ("files", "kib"),
    [
        ({}, 9000),
        ({"cgroup": "0::/\n", "/memory.max": "max\n", "/memory.current": "4096\n"}, 9000),
        ({"cgroup": "0::/a/b\n", "/a/memory.max": "4096000\n", "/a/memory.current": "3072000\n"}, 1000),
        (
            {
                "cgroup": "0::/a\n",
                "/a/memory.max": "4096000\n",
                "/a/memory.current": "4096000\n",
                "/a/memory.stat": "anon 7\ninactive_file 1024000\n",
            },
            1000,
        ),
        (
            {
                "cgroup": "4:cpu,memory:/x\n1:cpuset:/x\n",
                "/memory/memory.limit_in_bytes": "2048000\n",
                "/memory/memory.usage_in_bytes": "0\n",
            },
            2000,
        ),
    ],
)
def test_a_container_has_what_its_limit_leaves(files, kib, monkeypatch):
    found = {"/proc/self/cgroup": files.pop("cgroup", ""), "/proc/meminfo": MEMINFO}
    found |= {f"/sys/fs/cgroup{path}": text for path, text in files.items()}

    def read_text(path):
        if str(path) not in found:
            raise FileNotFoundError(path)
        return found[str(path)]

    with monkeypatch.context() as container:
        container.setattr(Path, "read_text", read_text)
        available = available_memory()
    assert available == 1024 * kib


def test_this_machine_has_some():
    assert available_memory() is None or available_memory() > 2**20
