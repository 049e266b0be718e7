"""Templates whose slots are filled: text that states known facts."""

from __future__ import annotations

import json
import re

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, Sample

TEMPLATES = (
    "{name} was born in {city} in {year}.",
    "In {year}, {name} moved to {city}.",
    "{name} of {city} bought {count} {thing}s in {year}.",
    "Who has {count} {thing}s? {name} does.",
)
SLOTS = {
    "name": ("Ada", "Bo", "Chidi", "Dana", "Emre", "Fatima", "Goro", "Hana"),
    "city": ("Lagos", "Lima", "Oslo", "Pune", "Quito", "Riga"),
    "year": tuple(str(year) for year in range(1950, 2026)),
    "count": tuple(str(n) for n in range(2, 100)),
    "thing": ("lamp", "map", "clock", "bell"),
}
_SLOT = re.compile(r"\{(\w+)\}")


class TemplatesConfig(GeneratorConfig):
    """Options of Templates."""

    templates: tuple[str, ...] = Field(TEMPLATES, min_length=1, description="texts with {slots}")
    slots: dict[str, tuple[str, ...]] = Field(SLOTS, description="values of each slot, equally likely")

    @model_validator(mode="after")
    def _filled(self) -> TemplatesConfig:
        for template in self.templates:
            for slot in _SLOT.findall(template):
                if not self.slots.get(slot):
                    raise ValueError(f"slot {{{slot}}} of {template!r} has no values: give slots.{slot}")
        return self


class Templates(Generator[TemplatesConfig]):
    """`text`: one template with its slots filled; `template`: which; `values`: what with, as a JSON object.

    >>> from helix_core import create
    >>> sample = create("generator", "templates").sample(0, 0)
    >>> sample["text"]
    'In 2024, Goro moved to Quito.'
    """

    def schema(self) -> dict[str, FieldSpec]:
        return {
            "text": FieldSpec("str", (), "the template, filled"),
            "template": FieldSpec("int64", (), "its index"),
            "values": FieldSpec("str", (), "of its slots, as JSON"),
        }

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        c = self.config
        which = int(rng.integers(len(c.templates)))
        names = dict.fromkeys(_SLOT.findall(c.templates[which]))
        values = {name: c.slots[name][int(rng.integers(len(c.slots[name])))] for name in names}
        text = _SLOT.sub(lambda match: values[match[1]], c.templates[which])
        return {"text": text, "template": np.int64(which), "values": json.dumps(values, ensure_ascii=False)}
