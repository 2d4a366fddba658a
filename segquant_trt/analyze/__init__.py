"""The analyze stage: what the graph means, read from its structure alone."""

from segquant_trt.analyze.facts import analyze

__all__ = ["analyze"]
