"""The recipe of a meaning induction."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helix_core.errors import ConfigError
from helix_core.untrusted import read_toml
from helix_plugin_topomemory.links import LinkConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Section):
    """What is read."""

    source: str | tuple[str, ...] = Field("stdlib", description="a file, folder or glob, or several; or 'stdlib'")
    validation: float = Field(0.05, gt=0, lt=1, description="share held out")
    transfer: str | None = Field(None, description="a second source on which the links are tried at the end")
    epoch_bytes: int = Field(400_000, gt=0, description="bytes read in an epoch")
    held_out_bytes: int = Field(50_000, gt=0, description="held-out bytes that are scored after each epoch")
    ticks: int = Field(8, gt=0, description="ticks of the links in an epoch")
    order: int = Field(4, gt=0, le=8, description="longest context, in bytes, that links to the byte behind it")
    context_bits: int = Field(20, ge=8, le=28, description="contexts are hashed to so many bits")


class Phase(_Section):
    """What a phase asks of links, and how often it replays."""

    theta_low: float
    theta_high: float
    link_npmi: float
    replay_every: int = Field(gt=0, description="windows between replays")
    most_epochs: int = Field(gt=0, description="epochs after which the next phase begins, whatever the evidence")


class ReplaySection(_Section):
    """What is replayed: windows of the past, by how much their links changed and how recent they are."""

    pool: int = Field(1000, gt=0, description="windows that are remembered")
    window: int = Field(256, gt=8, description="bytes in a window")
    sample: int = Field(32, ge=0, description="windows in a replay")
    recency: float = Field(0.05, ge=0, description="priority of the newest window, beside its |ΔS|")


class Gates(_Section):
    """The evidence on which phases change."""

    new_links: float = Field(0.25, ge=0, description="A ends when an epoch makes fewer new U-links, as a share of all")
    jaccard: float = Field(0.9, ge=0, le=1, description="B ends when the S-links of two epochs overlap this much ...")
    improvement: float = Field(0.01, description="... and held-out bits/byte improve by less than this share")


class MeaningRecipe(_Section):
    """One induction, from bytes to a report."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    data: DataSection = DataSection()
    links: LinkConfig = LinkConfig(min_count=3.0, g2=10.8, half_life_evidence=40.0, inertia=0.7)
    replay: ReplaySection = ReplaySection()
    gates: Gates = Gates()
    a: Phase = Phase(theta_low=0.2, theta_high=0.4, link_npmi=0.1, replay_every=50, most_epochs=4)
    b: Phase = Phase(theta_low=0.3, theta_high=0.5, link_npmi=0.15, replay_every=75, most_epochs=6)
    c: Phase = Phase(theta_low=0.3, theta_high=0.5, link_npmi=1.0, replay_every=100, most_epochs=2)


def load_meaning_recipe(path: Path) -> MeaningRecipe:
    """Read a recipe. Raises ConfigError with every wrong key."""
    data = read_toml(path, ConfigError)
    try:
        return MeaningRecipe.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError(f"{path} is not a meaning recipe:\n  " + "\n  ".join(lines)) from None
