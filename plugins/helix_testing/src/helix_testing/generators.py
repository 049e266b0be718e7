"""The generator kit: a pure function of seed and index, whoever computes it, and samples that keep their schema."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest

from helix_core.errors import ConfigError, UsageError
from helix_core.kinds.generator import Generator, TokenGenerator, digest
from helix_core.plugin_system import create, select

N = 24
_ELSEWHERE = """
import json, sys
from helix_core.kinds.generator import digest
from helix_core.plugin_system import create
sys.path[:0] = json.loads(sys.argv[1])
jobs, n = json.loads(sys.argv[2])
for name, config in jobs:
    made = create("generator", name, **config)
    print(digest([made.sample(7, i) for i in reversed(range(n))][::-1]))
"""


class BaseGeneratorTests:
    """Set `generator` to its name, `configs` to options that cover its variants, `impossible` to some it must refuse.

    Each of `impossible` is tried over the first of `configs` and must raise ConfigError before a sample is drawn.
    """

    generator: ClassVar[str] = ""
    configs: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    impossible: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @classmethod
    def helix_parametrize(cls, metafunc: pytest.Metafunc) -> None:
        for fixture, values in (("config", cls.configs), ("wrong", cls.impossible)):
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, values, ids=map(_label, values))

    def make(self, config: Mapping[str, Any]) -> Generator[Any]:
        """A new instance."""
        made: Generator[Any] = create("generator", self.generator, **config)
        return made

    # What it says about itself.

    def test_its_schema_is_kept(self, config: Mapping[str, Any], rng: np.random.Generator) -> None:
        made = self.make(config)
        schema = made.schema()
        assert schema, "a sample has no fields"
        assert schema == self.make(config).schema(), "the schema changes from one instance to the next"
        for index in (*range(N), *rng.integers(2**63, size=N).tolist()):
            sample = made.sample(int(rng.integers(2**63)), index)
            assert set(sample) == set(schema), f"sample {index} has fields {set(sample)}, not {set(schema)}"
            for name, spec in schema.items():
                problem = spec.problem(sample[name])
                assert problem is None, f"field {name!r} of sample {index} {problem}"

    def test_tokens_are_what_a_model_can_learn_from(self, config: Mapping[str, Any]) -> None:
        made = self.make(config)
        provided = "tokens" in select("generator", self.generator).chosen.descriptor.provides
        assert provided == isinstance(made, TokenGenerator), "its descriptor and its class disagree about 'tokens'"
        if not isinstance(made, TokenGenerator):
            return
        scored = np.zeros(made.vocab_size, np.int64)
        for index in range(N):
            sample = made.sample(3, index)
            inputs, targets, mask = sample["inputs"], sample["targets"], sample["mask"]
            assert inputs.shape == targets.shape == mask.shape == (made.seq_len,)
            for name, tokens in (("inputs", inputs), ("targets", targets)):
                inside = (tokens >= 0) & (tokens < made.vocab_size)
                assert inside.all(), f"{name} are outside [0, {made.vocab_size})"
            assert mask.any(), f"nothing is scored in sample {index}"
            scored += np.bincount(targets[mask], minlength=made.vocab_size)
        assert np.count_nonzero(scored) > 1, "every scored target is the same token: there is nothing to learn"

    def test_unknown_options_are_refused(self, config: Mapping[str, Any]) -> None:
        with pytest.raises(ConfigError, match="no_such_option"):
            self.make({**config, "no_such_option": 1})

    def test_impossible_options_are_refused(self, wrong: Mapping[str, Any]) -> None:
        with pytest.raises(ConfigError):
            self.make({**self.configs[0], **wrong})

    def test_seeds_and_indices_out_of_range_are_refused(self, config: Mapping[str, Any]) -> None:
        made = self.make(config)
        for seed, index in ((-1, 0), (0, -1), (2**64, 0), (0, 2**64)):
            with pytest.raises(UsageError, match="not in"):
                made.sample(seed, index)

    # A pure function of seed and index.

    def test_order_and_instance_do_not_matter(self, config: Mapping[str, Any], rng: np.random.Generator) -> None:
        seed = int(rng.integers(2**63))
        first = self.make(config)
        forward = [digest([first.sample(seed, i)]) for i in range(N)]
        second = self.make(config)
        second.sample(seed + 1, 0)  # another seed's world in between must leave no trace
        shuffled = {int(i): digest([second.sample(seed, int(i))]) for i in rng.permutation(N)}
        assert forward == [shuffled[i] for i in range(N)]

    def test_threads_and_shards_give_the_same_bytes(self, config: Mapping[str, Any]) -> None:
        made = self.make(config)
        alone = digest(made.sample(7, i) for i in range(N))
        shared = self.make(config)
        with ThreadPoolExecutor(4) as pool:
            assert digest(pool.map(lambda i: shared.sample(7, i), range(N))) == alone
        for shards in (2, 3, 5):
            parts = [[self.make(config).sample(7, i) for i in range(k, N, shards)] for k in range(shards)]
            assert digest(parts[i % shards][i // shards] for i in range(N)) == alone

    def test_another_process_gives_the_same_bytes(self) -> None:
        """With another hash seed, so that nothing follows the order of a set."""
        check_elsewhere([(self.generator, config) for config in self.configs])

    def test_seeds_and_indices_matter(self, config: Mapping[str, Any]) -> None:
        made = self.make(config)
        samples = [digest(made.sample(seed, i) for i in range(k, k + N)) for seed in (0, 1) for k in (0, N)]
        assert len(set(samples)) == 4, "samples repeat from one seed or one range of indices to the next"

    def test_global_random_numbers_are_left_alone(self, config: Mapping[str, Any]) -> None:
        made = self.make(config)
        before = digest(made.sample(5, i) for i in range(N))
        python, numpy = random.getstate(), np.random.get_state(legacy=False)
        after = digest(self.make(config).sample(5, i) for i in range(N))
        assert random.getstate() == python, "it draws from the module `random`"
        assert str(np.random.get_state(legacy=False)) == str(numpy), "it draws from NumPy's global generator"
        assert before == after

    def test_samples_belong_to_who_asked(self, config: Mapping[str, Any]) -> None:
        """Writing into a sample must not change another."""
        made = self.make(config)
        before = digest(made.sample(5, i) for i in range(N))
        for i in range(N):
            for value in made.sample(5, i).values():
                if isinstance(value, np.ndarray) and value.size:
                    value[...] = 0
        assert digest(made.sample(5, i) for i in range(N)) == before


def check_elsewhere(jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Generators by name and options give the same bytes in another process, with another hash seed."""
    command = [sys.executable, "-c", _ELSEWHERE, json.dumps(sys.path), json.dumps([list(jobs), N])]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    for (name, config), there in zip(jobs, done.stdout.split(), strict=True):
        made = create("generator", name, **config)
        assert there == digest(made.sample(7, i) for i in range(N)), f"{name} {config}"


def _label(config: Mapping[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in config.items()) or "defaults"
