"""How much of a model's work has its weights in codes, whoever coded them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from benchmarks.ablation.artifact import Artifact
from benchmarks.ablation.folded import SITE_OPERATORS, folded_model
from benchmarks.ablation.nncf_ptq import WITHOUT_BIAS
from benchmarks.ablation.subject import Subject
from segquant_trt.backends.openvino.session import core

_DECODING = ("Convert", "Multiply", "Subtract", "Reshape", "Transpose", "FakeQuantize")
_CODES = ("i4", "u4", "i8", "u8")


def coded_share(artifact: Artifact, subject: Subject) -> float:
    """Share of the multiplications with weights whose weights `artifact` keeps in codes."""
    if artifact.path.suffix == ".xml":
        names = set(_coded_in_openvino(artifact.path))
    else:
        folded = onnx.load(folded_model(subject, artifact.path.parent / "folded"))
        names = set(_coded_in_onnx(onnx.load(artifact.path), folded))
    return subject.share({site.name: site.name in names for site in subject.facts.sites})


def _coded_in_onnx(model: onnx.ModelProto, folded: onnx.ModelProto) -> Iterator[str]:
    """Names that the nodes had before: tools rename them, but not what they compute."""
    before = {node.output[0]: node.name for node in folded.graph.node}
    stored = {tensor.name for tensor in model.graph.initializer}
    decoded = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
    for node in model.graph.node:
        product = node.op_type in SITE_OPERATORS and node.input[1] in decoded
        if product or node.op_type == "MatMulNBits":
            yield before.get(node.output[0], node.name)


def _coded_in_openvino(path: Path) -> Iterator[str]:
    for node in core().read_model(path).get_ordered_ops():
        if node.get_type_name() in ("MatMul", "Convolution") and _is_coded(node):
            yield node.get_friendly_name().removesuffix(WITHOUT_BIAS)


def _is_coded(product: Any) -> bool:
    source = product.input_value(1).get_node()
    while source.get_type_name() in _DECODING:
        source = source.input_value(0).get_node()
    constant = source.get_type_name() == "Constant"
    return constant and source.get_element_type().get_type_name() in _CODES
