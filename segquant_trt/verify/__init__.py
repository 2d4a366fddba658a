"""The verify stage: how far a bundle is from its float model."""

from segquant_trt.verify.figures import psnr_db, sqnr_db, ssim
from segquant_trt.verify.stage import VerifyRequest, verify

__all__ = ["VerifyRequest", "psnr_db", "sqnr_db", "ssim", "verify"]
