"""Which GPUs TensorRT-RTX builds for, by CUDA compute capability."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto

from segquant_trt.errors import SegQuantError

CAPABILITIES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
_WITHOUT_FP8 = frozenset({"sm_75", "sm_80", "sm_86"})
_DATA_CENTRE = frozenset({"sm_90", "sm_100", "sm_103"})
_FLOAT8 = frozenset(
    {
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.FLOAT8E5M2,
        TensorProto.FLOAT8E5M2FNUZ,
    }
)


def check_capabilities(capabilities: Sequence[str], graph: onnx.GraphProto) -> None:
    """Refuse GPUs that the builder has no kernels for.

    Raises:
        SegQuantError: an unknown capability, one of a data-centre GPU, or FP8 on a GPU without it.
    """
    for capability in capabilities:
        if capability in _DATA_CENTRE:
            raise SegQuantError(
                f"TensorRT-RTX builds nothing for {capability}, a data-centre GPU",
                hint="build there with the package 'tensorrt'; TensorRT-RTX is for "
                f"{', '.join(CAPABILITIES)}",
            )
        if capability not in CAPABILITIES:
            raise SegQuantError(
                f"{capability!r} is no compute capability of TensorRT-RTX",
                hint=f"choose from {', '.join(CAPABILITIES)}",
            )
    without = [capability for capability in capabilities if capability in _WITHOUT_FP8]
    if without and has_float8(graph):
        raise SegQuantError(
            f"the graph has FP8 codes, and GPUs of {', '.join(without)} have no FP8 arithmetic",
            hint="plan INT8 for this GPU; FP8 needs sm_89, sm_120 or sm_121",
        )


def has_float8(graph: onnx.GraphProto) -> bool:
    """Whether any constant or cast of the graph is of an 8-bit floating-point type."""
    if any(tensor.data_type in _FLOAT8 for tensor in graph.initializer):
        return True
    attributes = (attribute for node in graph.node for attribute in node.attribute)
    return any(
        attribute.t.data_type in _FLOAT8
        or (attribute.name in ("to", "output_dtype") and attribute.i in _FLOAT8)
        for attribute in attributes
    )
