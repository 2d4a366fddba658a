"""The analyze stage: what the graph means, read from its structure alone."""

from segquant_trt.analyze.answer import as_answer
from segquant_trt.analyze.facts import analyze

__all__ = ["analyze", "as_answer"]
