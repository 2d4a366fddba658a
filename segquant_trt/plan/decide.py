"""Decide for every site: plain static INT8, or float. Pure: records in, record out.

INT8 weights have one symmetric scale per output channel; activations one scale per tensor, over
all timesteps. Of the symmetric and the shifted code the one with the smaller error on calibration
rows is taken: on CPU targets both cost the same, a zero point being native there.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from segquant_trt.errors import SegQuantError
from segquant_trt.schemes.seen import over_all_steps
from segquant_trt.records import (
    Considered,
    GraphFacts,
    LinearSite,
    QuantPlan,
    SegmentPlan,
    Shifted,
    SitePlan,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
    left_in_float,
)
from segquant_trt.records.calibration import ActivationStats, Calibration
from segquant_trt.records.options import CompileOptions, RangeMethod, WeightScaleMethod
from segquant_trt.schemes import fake_quantize, shifted, symmetric

_KEPT_ROLES = {
    "embedder": "an embedder: its error enters every block (kept in float; "
    "--quantize-all overrides)",
    "modulation": "modulation: one row per image, hardly any work, and it steers every token "
    "(kept in float; --quantize-all overrides)",
    "final": "the final projection: its error is the output's (kept in float; "
    "--quantize-all overrides)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What the user asks of a plan. `keep_float` are patterns over site and module names."""

    target: Target
    range_method: RangeMethod = "mse"
    weight_scales: WeightScaleMethod = "absmax"
    quantize_all: bool = False
    keep_float: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: CompileOptions) -> PlanRequest:
        """The request that a compilation's options make."""
        return cls(
            target=options.target,
            range_method=options.range_method,
            weight_scales=options.weight_scales,
            quantize_all=options.quantize_all,
            keep_float=options.keep_float,
        )


def make_plan(
    facts: GraphFacts,
    calibration: Calibration,
    request: PlanRequest,
    *,
    facts_sha256: str,
    calibration_sha256: str,
) -> QuantPlan:
    """The plan for one target.

    Raises:
        SegQuantError: facts and calibration are of different models, a site was not calibrated,
            a pattern matches no site, or nothing is left to quantise.
    """
    if calibration.onnx_sha256 != facts.onnx_sha256:
        raise SegQuantError(
            "calibration.safetensors and facts.yaml are of different models "
            f"({calibration.onnx_sha256[:12]} and {facts.onnx_sha256[:12]})",
            hint="run 'segquant-trt calibrate' on this model again",
        )
    _check_patterns(facts, request.keep_float)
    sites = tuple(_decide(site, calibration, request) for site in facts.sites)
    if all(site.treatment.is_float for site in sites):
        raise SegQuantError(
            f"all {len(sites)} sites would stay in float: nothing to quantise",
            hint="drop some --keep-float patterns, or use --quantize-all",
        )
    return QuantPlan(
        target=request.target,
        preset="plain",
        onnx_sha256=facts.onnx_sha256,
        facts_sha256=facts_sha256,
        calibration_sha256=calibration_sha256,
        sites=sites,
    )


def _decide(site: LinearSite, calibration: Calibration, request: PlanRequest) -> SitePlan:
    stats = _stats(site.activation, site, calibration)
    output = _stats(site.output, site, calibration)
    macs = output.elements_per_sample * site.in_features // site.groups * _taps(site)
    reason = _float_reason(site, request)
    if reason is not None:
        return SitePlan(
            site=site.name,
            module=site.module,
            treatment=left_in_float(site.in_features),
            output_range=None,
            macs_per_sample=macs,
            why=reason,
            considered=(),
        )
    rows = stats.rows.reshape(-1, stats.rows.shape[-1])
    seen = over_all_steps(stats)
    options: list[tuple[Symmetric | Shifted, float | None]] = [
        (scheme, _sqnr_db(rows, fake_quantize(rows, scheme)))
        for scheme in (
            symmetric.fit(seen, request.range_method),
            shifted.fit(seen, request.range_method),
        )
    ]
    options.sort(key=lambda option: -np.inf if option[1] is None else -option[1])
    (best, best_db), (_, other_db) = options
    return SitePlan(
        site=site.name,
        module=site.module,
        treatment=Treatment(
            segments=(SegmentPlan(channels=site.in_features, activation=best),),
            weight=WeightPlan(scale_method=request.weight_scales),
        ),
        output_range=_output_range(output, request.range_method),
        macs_per_sample=macs,
        why=_why(best, best_db, other_db, seen.low, seen.high),
        considered=tuple(_considered(scheme, decibels) for scheme, decibels in options),
    )


def _float_reason(site: LinearSite, request: PlanRequest) -> str | None:
    for pattern in request.keep_float:
        if _matches(site, pattern):
            return f"kept in float by --keep-float '{pattern}'"
    if site.role == "body" or request.quantize_all:
        return None
    return _KEPT_ROLES[site.role]


def _why(
    best: Symmetric | Shifted,
    best_db: float | None,
    other_db: float | None,
    low: float,
    high: float,
) -> str:
    seen = f"inputs span {low:.3g} to {high:.3g}"
    if best_db is None or other_db is None:
        return f"{seen}; no signal on the calibration rows"
    match best:
        case Symmetric():
            return f"{seen}; symmetric codes reach {best_db:.1f} dB, shifted {other_db:.1f} dB"
        case Shifted():
            return f"{seen}; shifted codes reach {best_db:.1f} dB, symmetric {other_db:.1f} dB"
        case _:
            assert_never(best)


def _considered(scheme: Symmetric | Shifted, decibels: float | None) -> Considered:
    return Considered(
        option=scheme.kind,
        sqnr_db=None if decibels is None else round(decibels, 2),
        cost_ms=None,
        reason="SQNR of the site's input on calibration rows",
    )


def _output_range(output: ActivationStats, method: RangeMethod) -> tuple[float, float]:
    fitted = shifted.fit(over_all_steps(output), method)
    lowest = fitted.scale * (fitted.zero_shift - 128)
    return float(lowest), float(lowest + 255 * fitted.scale)


def _sqnr_db(rows: npt.NDArray[np.float32], coded: npt.NDArray[np.float32]) -> float | None:
    signal = float(np.sum(rows.astype(np.float64) ** 2))
    noise = float(np.sum((rows.astype(np.float64) - coded) ** 2))
    if signal == 0.0:
        return None
    return float(10.0 * np.log10(signal / max(noise, signal * 1e-20)))


def _stats(tensor: str, site: LinearSite, calibration: Calibration) -> ActivationStats:
    stats = calibration.tensors.get(tensor)
    if stats is None:
        raise SegQuantError(
            f"site '{site.name}' reads or writes '{tensor}', which calibration.safetensors lacks",
            hint="run 'segquant-trt calibrate' again",
        )
    return stats


def _taps(site: LinearSite) -> int:
    return int(np.prod(site.kernel, dtype=np.int64))


def _matches(site: LinearSite, pattern: str) -> bool:
    return fnmatchcase(site.name, pattern) or fnmatchcase(site.module or "", pattern)


def _check_patterns(facts: GraphFacts, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        if not any(_matches(site, pattern) for site in facts.sites):
            examples = ", ".join(site.module or site.name for site in facts.sites[:4])
            raise SegQuantError(
                f"--keep-float '{pattern}' matches none of the {len(facts.sites)} sites "
                f"(their names begin with {examples}, ...)",
                hint="list the sites with 'segquant-trt inspect RUN/facts.yaml'",
            )
