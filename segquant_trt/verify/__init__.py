"""The verify stage: how far a bundle is from its float model."""

from segquant_trt.verify.free_running import Sampling
from segquant_trt.verify.quality import Denoisers, Verification, verify_inputs, verify_loop

__all__ = ["Denoisers", "Sampling", "Verification", "verify_inputs", "verify_loop"]
