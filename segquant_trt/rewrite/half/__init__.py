"""From a float32 graph to a strongly typed one that computes in float16."""

from segquant_trt.rewrite.half.convert import halve
from segquant_trt.rewrite.half.islands import Island, islands
from segquant_trt.rewrite.half.ranges import largest_values
from segquant_trt.rewrite.half.retype import HalveFloats

__all__ = ["HalveFloats", "Island", "halve", "islands", "largest_values"]
