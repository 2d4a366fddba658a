"""Hold an ONNX file against what TensorRT does with it, before any build.

Where a rule says nothing else, TensorRT-RTX 1.7.1 was run to find it. Rules for data-centre
TensorRT alone come from its documentation.
"""

from segquant_trt.backends.tensorrt.lint.examine import CAPABILITIES, lint
from segquant_trt.backends.tensorrt.lint.finding import (
    ERRORS,
    SEVERITIES,
    TARGETS,
    Finding,
    LintReport,
    SiteVerdict,
    Target,
)
from segquant_trt.backends.tensorrt.lint.rules import RULES

__all__ = [
    "CAPABILITIES",
    "ERRORS",
    "RULES",
    "SEVERITIES",
    "TARGETS",
    "Finding",
    "LintReport",
    "SiteVerdict",
    "Target",
    "lint",
]
