"""The file as a whole: versions, names, references, external data."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import PAIR, Subject
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.wiring import node_name

_OLDEST_OPSET = 7
# The newest operators of ONNX 1.19 to 1.21, which the parsers of TensorRT 10.13 to 11 know.
_NEWEST_OPSET = 24


def old_opset(subject: Subject) -> Iterator[Problem]:
    """Below 7 ONNX broadcast otherwise."""
    if subject.opset < _OLDEST_OPSET:
        yield Problem("", f"opset {subject.opset}; the parser reads {_OLDEST_OPSET} and later")


def new_opset(subject: Subject) -> Iterator[Problem]:
    """Operators may have changed their meaning since the parser was written."""
    if subject.opset > _NEWEST_OPSET:
        yield Problem("", f"opset {subject.opset} is newer than {_NEWEST_OPSET}")


def missing_tensors(subject: Subject) -> Iterator[Problem]:
    """Nodes and outputs that read what nobody makes."""
    wiring = subject.wiring
    known = set(wiring.constants) | set(wiring.graph_inputs) | set(wiring.producer)
    for node in wiring.nodes:
        lost = tuple(name for name in node.input if name and name not in known)
        if lost:
            yield Problem(node_name(node), f"nothing in the graph makes '{lost[0]}'", lost)
    for name in wiring.graph_outputs:
        if name not in known:
            yield Problem("", f"nothing in the graph makes the output '{name}'", (name,))


def repeated_names(subject: Subject) -> Iterator[Problem]:
    """Q/DQ nodes that share a name with a node before them."""
    seen: dict[str, str] = {}
    for node in subject.wiring.nodes:
        if node.name and node.op_type in PAIR and seen.get(node.name) in PAIR:
            yield Problem(node.name, f"another {seen[node.name]} has the same name")
        if node.name:
            seen[node.name] = node.op_type


def external_data(subject: Subject) -> Iterator[Problem]:
    """Weights whose bytes are not there."""
    for tensor in subject.model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        try:
            subject.weights.check(tensor.name)
        except SegQuantError as error:
            yield Problem("", error.what, (tensor.name,))


RULES: tuple[Rule, ...] = (
    Rule(
        name="opset-too-old",
        severity="parse-error",
        check=old_opset,
        fix="convert the file: onnx.version_converter.convert_version(model, 21)",
    ),
    Rule(
        name="opset-too-new",
        severity="advice",
        check=new_opset,
        fix="export with opset 21 to 24; the parser warns and reads newer files as if they were "
        "older",
    ),
    Rule(
        name="missing-tensor",
        severity="parse-error",
        check=missing_tensors,
        fix="export the model again; the file is damaged",
    ),
    Rule(
        name="repeated-node-name",
        severity="parse-error",
        check=repeated_names,
        fix="give every QuantizeLinear and DequantizeLinear a name of its own",
    ),
    Rule(
        name="external-data",
        severity="parse-error",
        check=external_data,
        fix="put the weight file beside the ONNX file, whole, and parse with the file's path",
    ),
)
