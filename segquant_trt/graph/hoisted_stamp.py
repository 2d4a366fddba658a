"""What was hoisted out of a rewritten graph, noted in the graph itself, and where it went."""

from __future__ import annotations

from pathlib import Path

import onnx

from segquant_trt.graph.record_stamp import stamp_record, stamped_record
from segquant_trt.records import HoistedPrompt

_KEY = "segquant_trt.hoisted_prompt"


def stamp_hoisted_prompt(model: onnx.ModelProto, hoisted: HoistedPrompt) -> None:
    """Note `hoisted` in the model's metadata."""
    stamp_record(model, _KEY, hoisted)


def hoisted_prompt(model: onnx.ModelProto) -> HoistedPrompt | None:
    """What was hoisted out of the graph; None where nothing was.

    Raises:
        SegQuantError: the note is damaged.
    """
    return stamped_record(model, _KEY, HoistedPrompt)


def prompt_path(quantized: Path) -> Path:
    """Where the graph lies that runs once per prompt; its data is in the other's file."""
    return quantized.with_name(f"{quantized.stem}.prompt{quantized.suffix}")
