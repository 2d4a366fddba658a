"""Operators: which the parser has, what plugins need, what becomes of local functions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import onnx
from onnx import NodeProto

from segquant_trt.backends.tensorrt.lint.finding import RTX
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.attributes import attribute, has_default_domain, int_attribute
from segquant_trt.graph.wiring import node_name, with_inner_nodes

# What OnnxParser.supports_operator of TensorRT-RTX 1.7.1 answers no to, among ONNX's own.
_WITHOUT_IMPORTER = frozenset(
    {"AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
     "BitwiseXor", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger",
     "CumProd", "DFT", "DeformConv", "Det", "DynamicQuantizeLinear", "ImageDecoder",
     "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial",
     "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement",
     "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct",
     "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
     "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer",
     "StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique"}
)  # fmt: skip
# Has an importer that fails on every input.
_BROKEN_IMPORTER = frozenset({"Celu"})
# Importers that call plugins which TensorRT-RTX does not have.
_PLUGIN_BEHIND = frozenset({"NonZero"})
# Importers for operators of other domains; the parser looks at the name alone.
_BESIDE_ONNX = frozenset(
    {"SimplifiedLayerNormalization", "MatMulNBits", "MultiHeadAttention",
     "TRT_FP8QuantizeLinear", "TRT_FP8DequantizeLinear", "TRT_FP4DynamicQuantize",
     "TRT_INT4DequantizeLinear", "TRT_MXFP8QuantizeLinear", "TRT_MXFP8DequantizeLinear"}
)  # fmt: skip
_INTEGER_PRODUCTS = frozenset(
    {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"}
)
_PLUGIN_ATTRIBUTES = ("plugin_namespace", "plugin_version")


@lru_cache(maxsize=1)
def _onnx_operators() -> frozenset[str]:
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain)


def unsupported(subject: Subject) -> Iterator[Problem]:
    """ONNX operators that the parser has no importer for."""
    for node in _all_nodes(subject):
        lacking = _WITHOUT_IMPORTER | _BROKEN_IMPORTER
        if node.op_type in lacking and node.op_type not in subject.plugins:
            integer = node.op_type in _INTEGER_PRODUCTS
            what = "; TensorRT takes products of codes as Q/DQ pairs only" if integer else ""
            yield Problem(node_name(node), f"the parser has no {node.op_type}{what}")


def without_plugin(subject: Subject) -> Iterator[Problem]:
    """Operators that TensorRT-RTX would call a plugin for that it does not have."""
    for node in _all_nodes(subject):
        if node.op_type in _PLUGIN_BEHIND:
            yield Problem(node_name(node), f"{node.op_type} is a plugin that is not there")


def unknown(subject: Subject) -> Iterator[Problem]:
    """Operators that only a plugin can be."""
    known = _onnx_operators() | _BESIDE_ONNX | subject.plugins
    for node in _all_nodes(subject):
        if node.op_type not in known:
            domain = f" of domain '{node.domain}'" if node.domain else ""
            yield Problem(
                node_name(node),
                f"{node.op_type}{domain} is neither ONNX's nor a local function of the file",
            )


def plugin_attributes(subject: Subject) -> Iterator[Problem]:
    """Local functions that a plugin shall replace, and whose calls do not say which."""
    for node in subject.called:
        if node.op_type not in subject.plugins:
            continue
        absent = [name for name in _PLUGIN_ATTRIBUTES if attribute(node, name) is None]
        if absent:
            yield Problem(
                node_name(node), f"the call has no {' and no '.join(absent)}: it is inlined instead"
            )


def inlined(subject: Subject) -> Iterator[Problem]:
    """Local functions without a plugin."""
    for node in subject.called:
        if node.op_type not in subject.plugins:
            yield Problem(
                node_name(node), f"no plugin {node.op_type} was named: the function is inlined"
            )


def shadowed(subject: Subject) -> Iterator[Problem]:
    """Operators of another domain under the name of one of ONNX's."""
    for node in _all_nodes(subject):
        own = not has_default_domain(node) and node.op_type in _onnx_operators()
        if own and node.op_type not in subject.plugins:
            yield Problem(
                node_name(node),
                f"{node.domain}::{node.op_type} is read as ONNX's {node.op_type}: the parser does "
                "not look at domains",
            )


def group_norm_scales(subject: Subject) -> Iterator[Problem]:
    """GroupNormalization, whose scales were one per group before opset 21."""
    for node in subject.nodes("GroupNormalization"):
        dims, whole = (subject.shapes.of(subject.operand(node, place)) for place in (1, 0))
        channels = whole[1] if whole is not None and len(whole) > 1 else None
        groups = int_attribute(node, "num_groups", 0)
        wanted = channels if subject.opset >= 21 else groups
        if not dims or not isinstance(dims[0], int) or not isinstance(wanted, int):
            continue
        if groups > 1 and dims[0] != wanted:
            yield Problem(
                node_name(node),
                f"{dims[0]} scales for {groups} groups; opset {subject.opset} wants {wanted}",
            )


def _all_nodes(subject: Subject) -> Iterator[NodeProto]:
    for node in subject.wiring.nodes:
        yield from with_inner_nodes(node)


RULES: tuple[Rule, ...] = (
    Rule(
        name="unsupported-operator",
        severity="parse-error",
        check=unsupported,
        fix="rewrite it with other operators, or provide a plugin and name it with --plugin-op",
    ),
    Rule(
        name="unknown-operator",
        severity="parse-error",
        check=unknown,
        fix="load the plugin library that has it and name it with --plugin-op, or ship it as a "
        "local function",
    ),
    Rule(
        name="no-such-plugin",
        severity="parse-error",
        check=without_plugin,
        fix="replace it by operators of fixed output shape; TensorRT-RTX ships no plugins",
        targets=RTX,
    ),
    Rule(
        name="group-norm-scales",
        severity="build-error",
        check=group_norm_scales,
        fix="declare the opset that the file was written for: one scale per channel since 21",
    ),
    Rule(
        name="shadowed-operator",
        severity="advice",
        check=shadowed,
        fix="rename the operator if it means something else than ONNX's",
    ),
    Rule(
        name="plugin-attributes",
        severity="slow",
        check=plugin_attributes,
        fix="give the node the attributes plugin_namespace and plugin_version of the plugin",
    ),
    Rule(
        name="function-inlined",
        severity="advice",
        check=inlined,
        fix="nothing, if the function's body is what shall run; else --plugin-op",
    ),
)
