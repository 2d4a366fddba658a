"""The bench stage: latency, memory and size of a bundle beside its float model."""

from segquant_trt.bench.stage import bench, unmeasured

__all__ = ["bench", "unmeasured"]
