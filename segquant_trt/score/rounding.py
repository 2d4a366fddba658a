"""Weight codes for calibration rows, and an honest estimate of their error on other rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import assert_never

from segquant_trt.records import WeightPlan
from segquant_trt.schemes.gptq import gptq
from segquant_trt.schemes.gram import gram
from segquant_trt.schemes.rounding import search_damping
from segquant_trt.schemes.weights import QuantizedWeight, quantize_weight
from segquant_trt.score.group import Float

_GPTQ_COLUMNS = 8192  # the Gram matrix of more takes gigabytes, its factor minutes


def admitted(plan: WeightPlan, weight: Float, rows: Float) -> WeightPlan:
    """The plan; searched scales where GPTQ costs too much, or no rows are left to judge it."""
    if plan.rounding != "gptq" or (weight.shape[1] <= _GPTQ_COLUMNS and rows.shape[1] > 1):
        return plan
    return WeightPlan(bits=plan.bits, block=plan.block, scale_method="mse")


def judges(rows: Float) -> Float:
    """The rows of [B, R, k] that say what an error costs: every other one, or the only one."""
    return rows[:, 1::2] if rows.shape[1] > 1 else rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """`codes` are made for all rows; `estimate` float32[N, k] decodes codes made for even ones."""

    codes: QuantizedWeight
    estimate: Float


def rounded(weight: Float, rows: Float, plan: WeightPlan) -> Rounded:
    """Codes of `weight` [N, k] for inputs like `rows` [B, R, k].

    GPTQ fits its rows, and looks better on them than on any others: its damping is chosen, and its
    error is to be measured, on the odd rows with codes that have seen the even ones only.
    """
    weight = np.ascontiguousarray(weight)
    if weight.shape[1] != rows.shape[-1]:  # a grouped convolution: every share of the input alike
        rows = np.stack(np.split(rows, rows.shape[-1] // weight.shape[1], axis=-1), axis=2)
    match plan.rounding:
        case "nearest":
            searched = plan.scale_method == "mse"
            flat = rows.reshape(-1, weight.shape[1])
            energy = np.square(flat, dtype=np.float64).mean(axis=0) if searched else None
            codes = quantize_weight(weight, plan, importance=energy)
            return Rounded(codes=codes, estimate=codes.dequantize())
        case "gptq":
            even, odd = gram(rows[:, ::2]), gram(judges(rows))
            damping = search_damping(weight, plan, even, odd)
            estimate = gptq(weight, even, plan, damping=damping).dequantize()
            codes = gptq(weight, even + odd, plan, damping=damping)
            return Rounded(codes=codes, estimate=estimate)
        case _:
            assert_never(plan.rounding)
