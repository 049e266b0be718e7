"""The memory kit on the topological memory, exact and with its index."""

from typing import ClassVar

from helix_testing import BaseMemoryTests


class TestExact(BaseMemoryTests):
    memory = "topological"
    config: ClassVar = {"dim": 16}
    recall = 1.0


class TestIndexed(BaseMemoryTests):
    memory = "topological"
    config: ClassVar = {"dim": 16, "exact_below": 0, "dtype": "f32"}
    recall = 0.98
