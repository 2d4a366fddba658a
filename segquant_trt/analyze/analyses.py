"""Every analysis, in the order of its facts. A new pattern is a module and a line here."""

from __future__ import annotations

from segquant_trt.analyze import (
    head_merge,
    input_segments,
    output_segments,
    polarity,
    prompt_constant,
    shared_weight,
    timestep_only,
)
from segquant_trt.analyze.subject import Analysis

ANALYSES: tuple[Analysis, ...] = (
    input_segments.find,
    head_merge.find,
    output_segments.find,
    polarity.find,
    timestep_only.find,
    prompt_constant.find,
    shared_weight.find,
)
