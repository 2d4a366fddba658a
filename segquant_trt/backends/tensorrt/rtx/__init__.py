"""TensorRT-RTX: builds engines ahead of time without a GPU, and tells what it made of a graph."""

from segquant_trt.backends.tensorrt.rtx.builder import RtxEngine, available, build, build_each
from segquant_trt.backends.tensorrt.rtx.capability import CAPABILITIES
from segquant_trt.backends.tensorrt.rtx.prove import EngineProof, products_of, prove
from segquant_trt.backends.tensorrt.rtx.shapes import Profile, ShapeRange

__all__ = [
    "CAPABILITIES",
    "EngineProof",
    "Profile",
    "RtxEngine",
    "ShapeRange",
    "available",
    "build",
    "build_each",
    "products_of",
    "prove",
]
