"""The file as a whole: versions, names, references, external data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import PAIR, Subject
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
    known.update(name for node in subject.waiting for name in node.output)
    for node in wiring.nodes:
        lost = tuple(name for name in node.input if name and name not in known)
        if lost:
            yield Problem(node_name(node), f"nothing in the graph makes '{lost[0]}'", lost)
    for name in wiring.graph_outputs:
        if name not in known:
            yield Problem("", f"nothing in the graph makes the output '{name}'", (name,))


def repeated_tensors(subject: Subject) -> Iterator[Problem]:
    """Names that stand for two tensors."""
    graph = subject.model.graph
    inputs = [value.name for value in graph.input]
    constants = [tensor.name for tensor in graph.initializer]
    made = [name for node in graph.node for name in node.output if name]
    # A constant may be listed among the inputs too.
    for names in (inputs, [*constants, *made], [*sorted({*inputs} - {*constants}), *made]):
        for name, times in Counter(names).items():
            if times > 1:
                yield Problem(
                    _maker(name, subject), f"'{name}' stands for {times} tensors", (name,)
                )


def cycles(subject: Subject) -> Iterator[Problem]:
    """Nodes that wait for each other."""
    for node in subject.waiting[:1]:
        count = len(subject.waiting)
        yield Problem(node_name(node), f"it is among {count} nodes that wait for each other")


def incomplete_nodes(subject: Subject) -> Iterator[Problem]:
    """Nodes with fewer inputs or outputs than their operator has."""
    newest = max(subject.opset, 1)
    for node in subject.hollow:
        yield Problem(node_name(node), f"{node.op_type or 'a node'} without an output")
    for node in subject.wiring.nodes:
        if not node.output[0]:
            yield Problem(node_name(node), f"{node.op_type} without its first output")
        if not onnx.defs.has(node.op_type, max_inclusive_version=newest):
            continue
        least = onnx.defs.get_schema(node.op_type, newest).min_input
        if len(node.input) < least or not all(node.input[:least]):
            given = sum(map(bool, node.input))
            yield Problem(node_name(node), f"{node.op_type} with {given} inputs of {least}")


def shapeless_inputs(subject: Subject) -> Iterator[Problem]:
    """Inputs without a shape, which are taken for scalars."""
    for name, value in subject.wiring.graph_inputs.items():
        kind = value.type
        if kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape"):
            yield Problem("", f"the input '{name}' has no shape", (name,))


def contractions(subject: Subject) -> Iterator[Problem]:
    """Products whose operands do not fit."""
    for node in subject.nodes("MatMul"):
        dims = [subject.shapes.of(name) for name in node.input[:2]]
        if len(dims) < 2 or not dims[0] or not dims[1]:
            continue
        left, right = dims[0][-1], dims[1][-2 if len(dims[1]) > 1 else 0]
        if isinstance(left, int) and isinstance(right, int) and left != right:
            yield Problem(node_name(node), f"its operands are {left} wide and {right} high")


def _maker(name: str, subject: Subject) -> str:
    node = subject.wiring.producer.get(name)
    return "" if node is None else node_name(node)


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
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = subject.folder / entries.get("location", "")
        end = int(entries.get("offset", "0")) + int(entries.get("length", "0"))
        held = path.stat().st_size if path.is_file() else None
        if held is None:
            yield Problem("", f"'{path.name}' is no file beside the model", (tensor.name,))
        elif held < end:
            reason = f"'{path.name}' has {held} bytes of the {end} that are wanted"
            yield Problem("", reason, (tensor.name,))


def short_constants(subject: Subject) -> Iterator[Problem]:
    """Constants in the file with fewer bytes than their shape needs."""
    for tensor in subject.model.graph.initializer:
        if not tensor.raw_data or tensor.data_location == TensorProto.EXTERNAL:
            continue
        wanted = subject.weights.size_bytes(tensor.name)
        if len(tensor.raw_data) < wanted:
            reason = f"'{tensor.name}' has {len(tensor.raw_data)} bytes of {wanted}"
            yield Problem(_maker(tensor.name, subject), reason, (tensor.name,))


# What must hold before anything else can be asked of a file.
DAMAGE: tuple[Rule, ...] = (
    Rule(
        name="incomplete-node",
        severity="parse-error",
        check=incomplete_nodes,
        fix="export the model again; the file is damaged",
    ),
)

RULES: tuple[Rule, ...] = (
    *DAMAGE,
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
        name="repeated-tensor",
        severity="parse-error",
        check=repeated_tensors,
        fix="give each tensor a name of its own",
    ),
    Rule(
        name="cycle",
        severity="parse-error",
        check=cycles,
        fix="export the model again; the file is damaged",
    ),
    Rule(
        name="input-without-shape",
        severity="parse-error",
        check=shapeless_inputs,
        fix="declare the input's shape, with names for lengths that vary",
    ),
    Rule(
        name="contraction",
        severity="parse-error",
        check=contractions,
        fix="check which weight belongs to the product",
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
    Rule(
        name="short-constant",
        severity="parse-error",
        check=short_constants,
        fix="export the model again; the file is damaged",
    ),
)
