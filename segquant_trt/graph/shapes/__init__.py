"""Shapes of every tensor of the main graph, with symbolic lengths that keep their arithmetic."""

from segquant_trt.graph.shapes.infer import infer_shapes
from segquant_trt.graph.shapes.knowledge import Shape, Shapes

__all__ = ["Shape", "Shapes", "infer_shapes"]
