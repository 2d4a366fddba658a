"""The rule book: every rule by name, group by group."""

from __future__ import annotations

from segquant_trt.backends.tensorrt.lint import (
    attention,
    file_rules,
    hardware,
    operators,
    placement,
    product_rules,
    scales,
    types,
    zero_points,
)
from segquant_trt.backends.tensorrt.lint.rule import Rule

RULES: tuple[Rule, ...] = (
    *file_rules.RULES,
    *types.RULES,
    *operators.RULES,
    *hardware.RULES,
    *zero_points.RULES,
    *scales.RULES,
    *product_rules.RULES,
    *attention.RULES,
    *placement.RULES,
)
