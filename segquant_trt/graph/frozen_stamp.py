"""What was frozen in a rewritten graph, noted in the graph itself, and its twin without tables."""

from __future__ import annotations

from pathlib import Path

import onnx

from segquant_trt.graph.record_stamp import stamp_record, stamped_record
from segquant_trt.records import FrozenSteps

_KEY = "segquant_trt.frozen_steps"


def stamp_frozen_steps(model: onnx.ModelProto, frozen: FrozenSteps) -> None:
    """Note `frozen` in the model's metadata."""
    stamp_record(model, _KEY, frozen)


def frozen_steps(model: onnx.ModelProto) -> FrozenSteps | None:
    """What was frozen in the graph; None where nothing was.

    Raises:
        SegQuantError: the note is damaged.
    """
    return stamped_record(model, _KEY, FrozenSteps)


def fallback_path(quantized: Path) -> Path:
    """Where the same graph without tables lies; its data is in the other's file."""
    return quantized.with_name(f"{quantized.stem}.fallback{quantized.suffix}")
