"""What is scored together: the sites that read one activation tensor, with their calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.weight_layout import as_rows
from segquant_trt.records import GraphFacts, LinearSite, WeightPlan
from segquant_trt.records.calibration import ActivationStats, Calibration

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]

_MOST_SEGMENTS = 4
MEASURED_BITS = 8  # of the weights with which `gains` are measured

Rounding: TypeAlias = tuple[int, str, str]  # bits, rounding, scale method


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One site: `rows` float32[B, R, C * taps] of its input, `weight` float32[N, C * taps].

    `gains`: float64[B, N], what INT8 inputs and weights cost, see `coherence`; `white` likewise for
    white noise, see `amplify`. `groups` > 1: output channel n reads only its own share
    of the columns; the weight then has C / groups * taps columns.
    """

    site: LinearSite
    rows: Float
    weight: Float
    bias: Float | None
    gains: Double
    white: Double
    output: ActivationStats
    joint: Mapping[Rounding, Double] = field(default_factory=dict)

    @property
    def taps(self) -> int:
        """Kernel positions; 1 for linears."""
        return prod(self.site.kernel)

    def noise(self, error: Float) -> Double:
        """Noise-to-signal power at the denoiser's output per bin, for output errors [B, R, N]."""
        return _weighted(error, self.gains)

    def white_noise(self, error: Float) -> Double:
        """The same for errors that have nothing to do with their neighbours'."""
        return _weighted(error, self.white)

    def weight_noise(self, error: Float, plan: WeightPlan, *, divided: bool) -> Double:
        """The same for what rounding the weight does to outputs.

        Coarser weights err like white noise over channels and tokens (INT8 inputs are up to 7 dB
        more coherent in front of a GELU), and alike at all sites, see `joint`: unless inputs are
        `divided`, which takes what outlier channels have in common.
        """
        if plan.bits >= MEASURED_BITS:
            return self.noise(error)
        white = self.white_noise(error)
        return white if divided else white * self.joint.get(rounding_of(plan), 1.0)

    def product(self, x: Float, weight: Float) -> Float:
        """`x [B, R, C * taps]` times `weight [N, C / groups * taps]`: float32[B, R, N]."""
        groups = self.site.groups
        if groups == 1:
            return np.asarray(x @ weight.T)
        parts = np.split(x, groups, axis=-1)
        rows = np.split(weight, groups, axis=0)
        return np.concatenate([a @ b.T for a, b in zip(parts, rows, strict=True)], axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Sites that share an input: channel vectors `rows` float32[B, R, C], and true extremes.

    `low` and `high`: float32[B, C]. `segments`: channels of the input segments that the graph
    shows; one number when there are none. `polar`: those segments (0 for an unsegmented input)
    that come from an activation with unequal polarities.
    """

    tensor: str
    members: tuple[Member, ...]
    rows: Float
    low: Float
    high: Float
    segments: tuple[int, ...]
    polar: frozenset[int]
    edges: tuple[float, ...]

    @property
    def channels(self) -> int:
        """C."""
        return int(self.rows.shape[-1])

    @property
    def admits_row_factors(self) -> bool:
        """Whether every row of every member's product sees one row of the input."""
        return all(member.taps == 1 for member in self.members)

    @property
    def admits_split(self) -> bool:
        """Whether the contraction may be cut between segments."""
        return len(self.segments) > 1 and all(m.site.groups == 1 for m in self.members)


def rounding_of(plan: WeightPlan) -> Rounding:
    """What tells ways of rounding apart."""
    return plan.bits, plan.rounding, plan.scale_method


def grouped(facts: GraphFacts) -> dict[str, list[LinearSite]]:
    """Sites by the tensor that they read, in graph order."""
    found: dict[str, list[LinearSite]] = {}
    for site in facts.sites:
        found.setdefault(site.activation, []).append(site)
    return found


def input_segments(facts: GraphFacts, sites: Sequence[LinearSite]) -> tuple[int, ...]:
    """Channels of the input segments that all of `sites` show alike; else one segment."""
    wanted = {site.name for site in sites}
    sizes = {
        entry.sizes
        for entry in facts.segments
        if entry.site in wanted
        and entry.side == "input"
        and entry.pattern in ("concat", "stack")
        and not entry.trivial
        and len(entry.sizes) <= _MOST_SEGMENTS
    }
    (whole,) = {site.in_features for site in sites}
    if len(sizes) != 1:
        return (whole,)
    (found,) = sizes
    return found if sum(found) == whole else (whole,)


def make_group(
    tensor: str,
    sites: Sequence[LinearSite],
    facts: GraphFacts,
    calibration: Calibration,
    weights: Weights,
    gains: Mapping[str, Double],
    white: Mapping[str, Double],
    joint: Mapping[Rounding, Double] | None = None,
) -> Group:
    """Read what calibration and checkpoint hold about the sites.

    Raises:
        SegQuantError: a site was not calibrated.
    """
    seen = _stats(tensor, sites[0], calibration)
    members = tuple(
        _member(site, seen, calibration, weights, gains, white, joint or {}) for site in sites
    )
    segments = input_segments(facts, sites)
    return Group(
        tensor=tensor,
        members=members,
        rows=seen.rows,
        low=seen.minimum,
        high=seen.maximum,
        segments=segments,
        polar=facts.polar_segments(sites[0].name, len(segments)),
        edges=calibration.bin_edges,
    )


def _member(
    site: LinearSite,
    seen: ActivationStats,
    calibration: Calibration,
    weights: Weights,
    gains: Mapping[str, Double],
    white: Mapping[str, Double],
    joint: Mapping[Rounding, Double],
) -> Member:
    output = _stats(site.output, site, calibration)
    rows = calibration.patches.get(site.name, seen.rows) if site.kernel else seen.rows
    weight = as_rows(weights.read_float32(site.weight), site.weight_layout)
    gain = gains.get(site.name)
    plain = white.get(site.name)
    if gain is None or gain.shape != (len(seen.rows), site.out_features):
        gain, plain = uniform_gains(output), None
    return Member(
        site=site,
        rows=rows,
        weight=weight,
        bias=weights.read_float32(site.bias) if site.bias is not None else None,
        gains=gain,
        white=gain if plain is None else plain,
        output=output,
        joint=joint,
    )


def _weighted(error: Float, gains: Double) -> Double:
    power = np.square(error, dtype=np.float64).mean(axis=1)
    result: Double = (power * gains).sum(axis=1)
    return result


def uniform_gains(output: ActivationStats) -> Double:
    """Every site's noise-to-signal ratio counts alike: float64[B, N]."""
    energy = np.square(output.rows, dtype=np.float64).sum(axis=2).mean(axis=1)
    channels = output.rows.shape[2]
    return np.repeat(1.0 / np.maximum(energy, 1e-30)[:, None], channels, axis=1)


def _stats(tensor: str, site: LinearSite, calibration: Calibration) -> ActivationStats:
    stats = calibration.tensors.get(tensor)
    if stats is None:
        raise SegQuantError(
            f"site '{site.name}' reads or writes '{tensor}', which calibration.safetensors lacks",
            hint="run 'segquant-trt calibrate' again",
        )
    return stats
