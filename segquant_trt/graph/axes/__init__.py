"""Following the channels of one axis upstream: which tensors do they come from, and in order?"""

from segquant_trt.graph.axes.layout import Factor, Layout, marked, traced_axis
from segquant_trt.graph.axes.outcome import Crossed, Ended, Joined, Mixed, Outcome, Place, Through
from segquant_trt.graph.axes.step import step_back

__all__ = [
    "Crossed",
    "Ended",
    "Factor",
    "Joined",
    "Layout",
    "Mixed",
    "Outcome",
    "Place",
    "Through",
    "marked",
    "step_back",
    "traced_axis",
]
