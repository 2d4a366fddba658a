"""Treatments as ONNX nodes: what `rewrite` puts into a graph, and `verify` into a float one."""

from segquant_trt.backends.emission.arrays import Arrays, StoredArrays, array_keys
from segquant_trt.backends.emission.builder import Builder
from segquant_trt.backends.emission.site import SiteEmitter
from segquant_trt.backends.emission.stored import (
    Correction,
    FloatTensor,
    SegLinearData,
    WeightCodes,
)
from segquant_trt.backends.emission.structure import Structure
from segquant_trt.backends.emission.weights import (
    StoredWeight,
    check_finite,
    float_tensor,
    site_codes,
    stored_weight,
)

__all__ = [
    "Arrays",
    "Builder",
    "Correction",
    "FloatTensor",
    "SegLinearData",
    "SiteEmitter",
    "StoredArrays",
    "StoredWeight",
    "Structure",
    "WeightCodes",
    "array_keys",
    "check_finite",
    "float_tensor",
    "site_codes",
    "stored_weight",
]
