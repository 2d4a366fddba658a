"""Stage `export`: from a diffusers denoiser to an ONNX graph that points at its weights."""

from segquant_trt.export.materialize import materialize
from segquant_trt.export.stage import export

__all__ = ["export", "materialize"]
