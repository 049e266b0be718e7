"""The options of a link graph: how stability is made up, and when a link rises, falls or goes."""

from __future__ import annotations

from enum import IntEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator


class State(IntEnum):
    """What a pair of nodes is. A candidate is only counted; the other three are links."""

    CANDIDATE = 0
    U = 1
    I = 2  # noqa: E741 (the method's own name)
    S = 3


class LinkConfig(BaseModel):
    """Options of U/I/S links. Times are in ticks: calls of `LinkGraph.advance`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight_r: float = Field(0.3, ge=0, description="weight of repetition, R = 1 - exp(-n/n0)")
    weight_e: float = Field(0.4, ge=0, description="weight of evidence, E = max(0, NPMI)")
    weight_c: float = Field(0.3, ge=0, description="weight of coherence, C = P(b|a)")
    weight_phi: float = Field(0.2, ge=0, description="weight of phase locking, Φ; left out where none was measured")
    inertia: float = Field(0.8, ge=0, lt=1, description="w_S: how much of the stability of before is kept")
    n0: float = Field(5.0, gt=0, description="repetitions at which R is 1 - 1/e")

    link_npmi: float = Field(0.1, ge=-1, le=1, description="NPMI above which a candidate becomes a U-link")
    g2: float = Field(15.1, ge=0, description="least G² of a link's 2x2 table; 15.1 is p = 1e-4")
    min_count: float = Field(5.0, ge=0, description="fewest (decayed) observations of a U-link")
    prior: float = Field(1.0, ge=0, description="observations' worth of independence mixed in (Dirichlet smoothing)")

    theta_low: float = Field(0.3, ge=0, le=1, description="U rises to I at this stability")
    theta_high: float = Field(0.5, ge=0, le=1, description="I rises to S at this stability")
    hysteresis: float = Field(0.1, ge=0, description="how far below its threshold a link falls back")
    dwell: int = Field(2, ge=0, le=250, description="ticks a link stays in a state at least")
    prune: float = Field(0.02, ge=0, le=1, description="a U-link below this stability goes")

    cap_u: int = Field(10, gt=0, description="most U-links out of one node")
    cap_i: int = Field(20, gt=0, description="most I-links out of one node")
    cap_s: int = Field(50, gt=0, description="most S-links out of one node")
    half_life_u: float = Field(13.5, gt=0, description="half-life of the repetitions of a candidate or U-link")
    half_life_i: float = Field(34.3, gt=0, description="of an I-link")
    half_life_s: float = Field(69.0, gt=0, description="of an S-link")
    half_life_evidence: float = Field(8.0, gt=0, description="half-life of the counts behind NPMI, P(b|a) and G²")
    max_links: int = Field(10_000_000, gt=0, description="pairs held; the weakest make room beyond that")

    @model_validator(mode="after")
    def _thresholds(self) -> LinkConfig:
        if self.theta_low >= self.theta_high:
            raise ValueError("theta_low must be below theta_high")
        if self.weight_r + self.weight_e + self.weight_c == 0:
            raise ValueError("one of weight_r, weight_e and weight_c must be above 0")
        return self

    @property
    def decay(self) -> tuple[float, float, float, float]:
        """Factors per tick on the repetitions of a candidate, a U-, an I- and an S-link."""
        u, i, s = (0.5 ** (1 / life) for life in (self.half_life_u, self.half_life_i, self.half_life_s))
        return u, u, i, s
