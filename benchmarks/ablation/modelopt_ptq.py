"""NVIDIA ModelOpt's ONNX quantiser in INT8, calibrated on the CPU."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.ablation.folded import SITE_OPERATORS, Scope, folded_model, kept_in_float
from benchmarks.ablation.onnxruntime_ptq import Recorded
from benchmarks.ablation.subject import Subject


def quantise_with_modelopt(subject: Subject, out: Path, calibration: str, scope: Scope) -> None:
    """Write a Q/DQ model to `out`, float parts in float32 (its default is float16)."""
    from modelopt.onnx.quantization import quantize

    source = folded_model(subject, out.parent / "folded")
    kept = kept_in_float(source, subject, scope)
    started = own_folder(out) / "started.onnx"
    quantize(
        str(source),
        quantize_mode="int8",
        calibration_method=calibration,
        calibration_data_reader=Recorded(subject),
        calibration_eps=["cpu"],
        op_types_to_quantize=list(SITE_OPERATORS) if scope == "linears" else None,
        nodes_to_exclude=[f"^{re.escape(name)}$" for name in kept],
        high_precision_dtype="fp32",
        output_path=str(started),
        log_level="WARNING",
    )
    started.rename(out)


def own_folder(out: Path) -> Path:
    """A new folder beside `out`: ModelOpt keeps models under fixed names beside what it writes."""
    folder = out.parent / f"{out.stem}.started"
    folder.mkdir(exist_ok=True)
    return folder
