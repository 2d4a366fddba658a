"""Where a runtime wants its Q/DQ pairs, as data: `rewrite` emits, the backend declares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Emission rules of one target.

    `requantize_conv_output`: a Q/DQ pair follows every quantised convolution.
    `lift_linear_bias`: the bias of a linear is stored as `[1, 1, N]`.
    """

    requantize_conv_output: bool
    lift_linear_bias: bool
