"""What a dataset is made of: from a plan every byte of it follows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from helix_core.errors import UsageError
from helix_core.kinds.generator import Generator, Sample
from helix_core.plugin_system import create, select
from helix_plugin_synthetic.storage.formats import FORMATS


@dataclass(frozen=True)
class Plan:
    """Samples `start` .. `start + n - 1` of a generator under a seed, in shards of `shard_size`."""

    generator: str
    options: dict[str, Any]
    seed: int
    n: int
    start: int = 0
    format: str = "parquet"
    shard_size: int = 10_000
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"no format {self.format!r}", hint=f"give one of {', '.join(FORMATS)}")
        if self.n < 1 or self.shard_size < 1:
            raise UsageError("a dataset needs n >= 1 samples in shards of shard_size >= 1")
        if not (0 <= self.seed < 2**64 and self.start >= 0 and self.start + self.n <= 2**64):
            raise UsageError("seed and indices of samples must lie in [0, 2**64)")

    @classmethod
    def of(cls, generator: str, options: dict[str, Any], **rest: Any) -> Plan:
        """A plan with every default of the generator written out. Raises what `create` raises."""
        component = select("generator", generator).chosen
        made: Generator[Any] = create("generator", component.full_name, **options)
        distributions = ("numpy", "pyarrow", "networkx", "helix-plugin-synthetic")
        versions = {name: version(name) for name in distributions}
        return cls(component.full_name, made.config.model_dump(mode="json"), versions=versions, **rest)

    def make(self) -> Generator[Any]:
        """The generator."""
        made: Generator[Any] = create("generator", self.generator, **self.options)
        return made

    @property
    def shards(self) -> int:
        """How many files there will be."""
        return -(-self.n // self.shard_size)

    def file(self, shard: int) -> str:
        """The name of a shard."""
        return f"part-{shard:05d}.{FORMATS[self.format][2]}"

    def indices(self, shard: int) -> range:
        """The indices of its samples."""
        begin = self.start + shard * self.shard_size
        return range(begin, min(begin + self.shard_size, self.start + self.n))

    def shard_samples(self, shard: int, generator: Generator[Any] | None = None) -> list[Sample]:
        """Its samples, generated."""
        generator = generator or self.make()
        return [generator.sample(self.seed, index) for index in self.indices(shard)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
