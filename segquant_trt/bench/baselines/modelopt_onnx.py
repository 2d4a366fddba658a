"""NVIDIA ModelOpt's ways to prepare an ONNX file for TensorRT: types, or Q/DQ pairs, in the file.

TensorRT 11 has no builder flags for precisions: FP16 is a graph of float16 tensors (AutoCast),
INT8 and FP8 are Q/DQ pairs (post-training quantisation with ModelOpt's defaults for each).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segquant_trt.errors import MissingDependencyError, SegQuantError

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array

Precision = Literal["fp16", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8", "fp8")


def prepared_onnx(
    model: Path, out: Path, precision: Precision, inputs: Mapping[str, Array]
) -> Path:
    """Write a self-contained graph in `precision`, in a folder that holds nothing else of value.

    Args:
        model: a self-contained float ONNX file.
        out: the file to write; inputs and outputs keep their types.
        inputs: of one call, to calibrate with.

    Raises:
        SegQuantError: ModelOpt fails on the graph.
        MissingDependencyError: it is not installed.
    """
    autocast, quantize = _modelopt()
    logging.getLogger("modelopt").setLevel(logging.WARNING)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if precision == "fp16":
            _save(autocast(str(model), low_precision_type="fp16", keep_io_types=True), out)
        else:
            quantize(
                str(model),
                quantize_mode=precision,
                calibration_data=dict(inputs),
                calibration_eps=["cpu"],
                high_precision_dtype="fp16",
                output_path=str(out),
                log_level="WARNING",
            )
    except ImportError as error:  # AutoCast needs polygraphy, which ModelOpt does not bring
        raise MissingDependencyError(
            error.name or "polygraphy", extra="tensorrt", why=f"ModelOpt's way to {precision}"
        ) from error
    except Exception as error:  # its exceptions share no base class
        reason = str(error).partition("\n")[0]
        raise SegQuantError(
            f"ModelOpt cannot make {precision} of {model}: {type(error).__name__}: {reason}",
            hint="leave this baseline out, or give an engine that you have built yourself",
        ) from error
    return out


def _save(model: Any, out: Path) -> None:
    import onnx

    onnx.save_model(
        model,
        str(out),
        save_as_external_data=True,
        location=f"{out.name}.data",
        size_threshold=1024,
    )


def _modelopt() -> tuple[Any, Any]:
    try:
        from modelopt.onnx.autocast import convert_to_mixed_precision
        from modelopt.onnx.quantization import quantize
    except ImportError as error:
        raise MissingDependencyError(
            "nvidia-modelopt", extra="baselines", why="preparing an ONNX file for TensorRT"
        ) from error
    return convert_to_mixed_precision, quantize
