"""Optimised weights: which way of rounding, and how strongly it trusts its calibration rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from segquant_trt.records import WeightPlan
from segquant_trt.schemes.gptq import DAMPING, gptq, input_energy
from segquant_trt.schemes.gram import output_energy
from segquant_trt.schemes.weights import QuantizedWeight, quantize_weight, weight_scale

DAMPINGS = (0.03, DAMPING, 0.3, 1.0)
_SAMPLED_ROWS = 512


def optimise_weight(
    rows: npt.NDArray[np.float32],
    plan: WeightPlan,
    gram: npt.NDArray[np.float64],
    *,
    held_out: npt.NDArray[np.float64] | None = None,
    smallest: npt.NDArray[np.float32] | None = None,
) -> QuantizedWeight:
    """Codes of float32[N, K] as `plan.rounding` says, errors measured as the inputs see them.

    Args:
        rows: the weight, already multiplied by its divisor; finite.
        plan: bits, block, rounding and scale method.
        gram: float64[K, K] of the inputs, already divided.
        held_out: the same of other rows. With it GPTQ's damping is searched (`search_damping`),
            and both matrices' sum is what the codes are made for.
        smallest: float32[N], scales are at least this.

    Raises:
        SegQuantError: a Gram matrix holds NaN or infinity, or the plan's block is not positive.
    """
    seen = gram if held_out is None else gram + held_out
    match plan.rounding:
        case "nearest":
            importance = input_energy(seen)
            return quantize_weight(rows, plan, smallest=smallest, importance=importance)
        case "gptq":
            damping = DAMPING
            if held_out is not None:
                damping = search_damping(rows, plan, gram, held_out)
            return gptq(rows, seen, plan, damping=damping, smallest=smallest)
        case _:
            assert_never(plan.rounding)


def search_damping(
    rows: npt.NDArray[np.float32],
    plan: WeightPlan,
    gram: npt.NDArray[np.float64],
    held_out: npt.NDArray[np.float64],
    dampings: tuple[float, ...] = DAMPINGS,
) -> float:
    """The damping whose codes, made with `gram`, have the least output error on `held_out`.

    With few calibration rows to a channel GPTQ fits their noise, and ends up behind rounding to
    nearest on other rows; strong damping prevents that. Evenly spaced output channels, at most
    512, stand for all of them.
    """
    some = np.ascontiguousarray(rows[:: -(-len(rows) // _SAMPLED_ROWS) or 1])
    # Which damping is best hardly depends on the scales, whose search takes several times longer.
    scale = weight_scale(some, plan, importance=input_energy(gram))
    errors = []
    for damping in dampings:
        found = gptq(some, gram, plan, damping=damping, scale=scale)
        errors.append(output_energy(some - found.dequantize(), held_out))
    return dampings[int(np.argmin(errors))]
