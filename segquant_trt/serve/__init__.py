"""Load a bundle and call it."""

from segquant_trt.serve.denoiser import CompiledDenoiser
from segquant_trt.serve.load import load

__all__ = ["CompiledDenoiser", "load"]
