"""The build stage: a rewritten graph becomes a bundle, after proof that it runs in integers."""

from segquant_trt.build.bundle import build

__all__ = ["build"]
