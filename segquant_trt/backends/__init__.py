"""Runtimes behind one interface."""

from segquant_trt.backends.base import Backend, Runner, SiteProof
from segquant_trt.backends.onnxruntime import OnnxRuntime
from segquant_trt.backends.openvino import OpenVino
from segquant_trt.backends.placement import Placement
from segquant_trt.backends.tensorrt.rtx.backend import TensorRtRtx
from segquant_trt.records import Target

__all__ = ["BACKENDS", "CPU_BACKENDS", "Backend", "Placement", "Runner", "SiteProof", "backend_for"]

CPU_BACKENDS: tuple[Backend, ...] = (OnnxRuntime(), OpenVino())
BACKENDS: tuple[Backend, ...] = (*CPU_BACKENDS, TensorRtRtx())


def backend_for(target: Target) -> Backend:
    """The backend that a plan's target names."""
    return next(backend for backend in BACKENDS if backend.target == target)
