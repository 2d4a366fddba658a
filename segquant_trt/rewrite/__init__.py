"""The rewrite stage: the float graph and a plan become a Q/DQ graph that owns its bytes."""

from segquant_trt.rewrite.foldable import foldable
from segquant_trt.rewrite.removable import removable
from segquant_trt.rewrite.rewrite import Freezing, Removed, rewrite
from segquant_trt.rewrite.samples import samples_elsewhere

__all__ = ["Freezing", "Removed", "foldable", "removable", "rewrite", "samples_elsewhere"]
