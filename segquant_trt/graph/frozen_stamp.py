"""What was frozen in a rewritten graph, noted in the graph itself, and its twin without tables."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from segquant_trt.records import FrozenSteps
from segquant_trt.records.codec import from_plain, to_plain

_KEY = "segquant_trt.frozen_steps"


def stamp_frozen_steps(model: onnx.ModelProto, frozen: FrozenSteps) -> None:
    """Note `frozen` in the model's metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = _KEY, json.dumps(to_plain(frozen), sort_keys=True)


def frozen_steps(model: onnx.ModelProto) -> FrozenSteps | None:
    """What was frozen in the graph; None where nothing was.

    Raises:
        SegQuantError: the note is damaged.
    """
    for entry in model.metadata_props:
        if entry.key == _KEY:
            return from_plain(json.loads(entry.value), FrozenSteps, origin="the graph's metadata")
    return None


def fallback_path(quantized: Path) -> Path:
    """Where the same graph without tables lies; its data is in the other's file."""
    return quantized.with_name(f"{quantized.stem}.fallback{quantized.suffix}")
