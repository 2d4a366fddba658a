"""TensorRT behind the two things that a comparison asks of it: build an engine, open an engine."""

from __future__ import annotations

import importlib
from typing import Any

from segquant_trt.bench.baselines.tensorrt_onnx import Engines
from segquant_trt.errors import SegQuantError


def engines() -> Engines:
    """TensorRT, after asking for a GPU.

    Raises:
        SegQuantError: there is no GPU, or no TensorRT.
    """
    from segquant_trt.backends.tensorrt.device import find_device

    find_device()
    try:
        module: Any = importlib.import_module("segquant_trt.backends.tensorrt.runtime")
    except ImportError as error:
        raise SegQuantError(
            f"engines cannot be run here: {error}",
            hint="pip install 'segquant-trt[tensorrt]' on a machine with an NVIDIA GPU",
        ) from error
    found: Engines = module.timed_engines()
    return found
