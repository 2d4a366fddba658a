"""The bench stage: latency, memory and size of a bundle beside its float model."""

from segquant_trt.bench.benchmark import Contender, benchmark

__all__ = ["Contender", "benchmark"]
