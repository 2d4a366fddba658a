"""What was hoisted out of a rewritten graph, noted in the graph itself, and where it went."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from segquant_trt.records import HoistedPrompt
from segquant_trt.records.codec import from_plain, to_plain

_KEY = "segquant_trt.hoisted_prompt"


def stamp_hoisted_prompt(model: onnx.ModelProto, hoisted: HoistedPrompt) -> None:
    """Note `hoisted` in the model's metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = _KEY, json.dumps(to_plain(hoisted), sort_keys=True)


def hoisted_prompt(model: onnx.ModelProto) -> HoistedPrompt | None:
    """What was hoisted out of the graph; None where nothing was.

    Raises:
        SegQuantError: the note is damaged.
    """
    for entry in model.metadata_props:
        if entry.key == _KEY:
            return from_plain(json.loads(entry.value), HoistedPrompt, origin="the graph's metadata")
    return None


def prompt_path(quantized: Path) -> Path:
    """Where the graph lies that runs once per prompt; its data is in the other's file."""
    return quantized.with_name(f"{quantized.stem}.prompt{quantized.suffix}")
