"""From the builder's verbose log to the record of an engine's layers."""

from __future__ import annotations

import re

from segquant_trt.backends.tensorrt.rtx.layers import parse_layers
from segquant_trt.records.layer_report import LayerReport

BUILDER = "tensorrt-rtx"
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
_SCRATCH = re.compile(r"Max Scratch Memory: (\d+) bytes")
_WARNING = re.compile(r"^\[W\] (.*)$", re.MULTILINE)


def report_of(
    log: str, *, capability: str, version: str, seconds: float, engine_bytes: int
) -> LayerReport:
    """The report of one build from its log, whose lines begin with "[V] " and other letters.

    Raises:
        SegQuantError: the log lists no layers, or in a form that is not known.
    """
    return LayerReport(
        builder=BUILDER,
        version=version,
        capability=capability,
        engine_bytes=engine_bytes,
        weights_bytes=_largest(_WEIGHTS, log),
        scratch_bytes=_largest(_SCRATCH, log),
        seconds=round(seconds, 3),
        layers=parse_layers(log),
        warnings=tuple(dict.fromkeys(_WARNING.findall(log))),
    )


def _largest(pattern: re.Pattern[str], log: str) -> int:
    return max(map(int, pattern.findall(log)), default=0)
