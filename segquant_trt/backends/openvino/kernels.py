"""Which kernel executes which product: read from OpenVINO's runtime model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from segquant_trt.backends.openvino.split import HALF
from segquant_trt.graph.qdq import coded_products
from segquant_trt.graph.wiring import Wiring, node_name

_LAYERS = frozenset({"FullyConnected", "MatMul", "Convolution"})
# What OpenVINO, and `split`, append to a product's name, from the outside in.
_SUFFIXES = (
    "/DequantizationMultiply", "/DequantizationSubtract", "/WithoutBiases", "_original", HALF,
)  # fmt: skip
_ON_THE_WAY = 4  # nodes between a kernel and its weight: Transpose, Reorder, Convert, ..


def kernels_of_products(compiled: Any, model: onnx.ModelProto) -> dict[str, list[str]]:
    """The kernels of every product of `model`, by node name, once it was run.

    A layer has its product's name; where a transformation made it anew, its weight's name tells.
    """
    products = {node_name(node): codes for node, codes in coded_products(Wiring(model.graph))}
    by_codes = {codes: name for name, codes in products.items()}
    by_codes |= {f"{codes}{HALF}": name for codes, name in by_codes.items()}
    renamed = _renamed(model)
    found: dict[str, list[str]] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: _text(value) for key, value in node.get_rt_info().items()}
        if info.get("layerType") not in _LAYERS:
            continue
        own = {_product(name, renamed) for name in _names(info)} & products.keys()
        if not own:
            own = {by_codes[name] for name in _weight_names(node) if name in by_codes}
        for product in own:
            found.setdefault(product, []).append(info.get("primitiveType", "unknown"))
    return found


def _product(name: str, renamed: dict[str, str]) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return renamed.get(name, name)


def _names(info: dict[str, str]) -> list[str]:
    return info.get("originalLayersNames", "").split(",")


def _weight_names(node: Any, depth: int = _ON_THE_WAY) -> Iterator[str]:
    """Names of all that a layer's weight comes from."""
    for source in list(node.inputs())[1:] if depth == _ON_THE_WAY else node.inputs():
        before = source.get_source_output().get_node()
        info = {key: _text(value) for key, value in before.get_rt_info().items()}
        yield from _names(info)
        if depth > 1 and info.get("layerType") not in _LAYERS:
            yield from _weight_names(before, depth - 1)


def _renamed(model: onnx.ModelProto) -> dict[str, str]:
    """OpenVINO calls a layer that writes a graph output by that output's name."""
    results = {value.name for value in model.graph.output}
    return {
        name: node_name(node)
        for node in model.graph.node
        for name in node.output
        if name in results and name != node_name(node)
    }


def _text(value: Any) -> str:
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)
