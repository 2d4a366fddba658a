"""What an ONNX file holds, read without its external data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import external_range, load_graph
from segquant_trt.records import CheckpointLocation, GraphFacts
from segquant_trt.records.codec import read_record
from segquant_trt.report.description import Cell, Column, Description, Property, Table
from segquant_trt.report.inspect_facts import facts_properties, facts_tables

_INTEGER_OPS = frozenset(
    ("MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "MatMulIntegerToFloat",
     "DynamicQuantizeMatMul", "QGemm", "QLinearAdd", "QLinearMul")
)  # fmt: skip


Analysis: TypeAlias = Callable[[Path], GraphFacts]


def describe_graph(path: Path, analysis: Analysis | None = None) -> Description:
    """Opset, inputs and outputs, operators, Q/DQ pairs, initializers, external files.

    Args:
        path: the ONNX file.
        analysis: finds sites, segments and near misses, which are then shown too.

    Raises:
        SegQuantError: not a readable ONNX graph, an initializer that points out of the folder, or
            a damaged `model.location.yaml` beside an export.
    """
    model = load_graph(path)
    nodes = list(_nodes(model.graph.node))
    for function in model.functions:
        nodes.extend(_nodes(function.node))
    operators = Counter(_qualified(node.domain, node.op_type) for node in nodes)
    ordered = sorted(operators, key=lambda name: (-operators[name], name))
    weight_bytes = sum(_size_bytes(tensor) for tensor in model.graph.initializer)
    files, notes = _external_files(model, _weights_folder(path))
    facts, refused = _facts(path, analysis)
    tables = [
        _values("inputs", list(model.graph.input)),
        _values("outputs", list(model.graph.output)),
        Table(
            title="operators",
            columns=(Column(name="operator"), Column(name="count", unit="count")),
            rows=tuple((name, operators[name]) for name in ordered),
        ),
        _initializers(model),
    ]
    return Description(
        kind="ONNX graph",
        properties=(
            Property(name="file", value=path.name),
            Property(name="opset", value=_opsets(model)),
            Property(name="ir version", value=model.ir_version),
            Property(name="producer", value=model.producer_name),
            Property(name="nodes", value=len(nodes)),
            Property(name="local functions", value=len(model.functions)),
            *_quantization(nodes, {tensor.name for tensor in model.graph.initializer}),
            Property(name="initializers", value=len(model.graph.initializer)),
            Property(name="initializer bytes", value=weight_bytes, unit="bytes"),
            *(facts_properties(facts) if facts else ()),
        ),
        tables=(
            *tables, *((files,) if files.rows else ()), *(facts_tables(facts) if facts else ())
        ),
        notes=(*notes, *(facts.notes if facts else ()), *refused),
    )  # fmt: skip


def _facts(path: Path, analysis: Analysis | None) -> tuple[GraphFacts | None, tuple[str, ...]]:
    if analysis is None:
        return None, ()
    try:
        return analysis(path), ()
    except SegQuantError as error:
        return None, (f"not analysed: {error.what}",)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)


def _qualified(domain: str, name: str) -> str:
    return f"{domain}::{name}" if domain not in ("", "ai.onnx") else name


def _opsets(model: onnx.ModelProto) -> str:
    return ", ".join(
        f"{opset.domain} {opset.version}" if opset.domain else str(opset.version)
        for opset in model.opset_import
    )


def _quantization(nodes: list[onnx.NodeProto], initializers: set[str]) -> Iterator[Property]:
    quantized = {out for node in nodes if node.op_type == "QuantizeLinear" for out in node.output}
    sources = [node.input[0] for node in nodes if node.op_type == "DequantizeLinear"]
    yield Property(name="Q/DQ pairs", value=sum(source in quantized for source in sources))
    yield Property(
        name="weights behind DQ", value=len({name for name in sources if name in initializers})
    )
    integer = sum(node.op_type in _INTEGER_OPS for node in nodes)
    yield Property(name="integer operators", value=integer)


def _values(title: str, values: list[onnx.ValueInfoProto]) -> Table:
    return Table(
        title=title,
        columns=(Column(name="name"), Column(name="type"), Column(name="shape")),
        rows=tuple((value.name, *_type(value.type)) for value in values),
    )


def _type(value: onnx.TypeProto) -> tuple[str, str]:
    kind = str(value.WhichOneof("value"))
    if kind != "tensor_type":
        return kind, "?"
    tensor = value.tensor_type
    if not tensor.HasField("shape"):
        return _dtype(tensor.elem_type), "?"
    axes = [
        str(axis.dim_value) if axis.HasField("dim_value") else axis.dim_param or "?"
        for axis in tensor.shape.dim
    ]
    return _dtype(tensor.elem_type), f"[{', '.join(axes)}]"


def _dtype(code: int) -> str:
    return str(onnx.TensorProto.DataType.Name(code)).lower()


def _initializers(model: onnx.ModelProto) -> Table:
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for tensor in model.graph.initializer:
        place = "external" if tensor.data_location == onnx.TensorProto.EXTERNAL else "inline"
        entry = totals[_dtype(tensor.data_type), place]
        entry[0] += 1
        entry[1] += _size_bytes(tensor)
    return Table(
        title="initializers by type",
        columns=(
            Column(name="type"),
            Column(name="stored"),
            Column(name="count", unit="count"),
            Column(name="bytes", unit="bytes"),
        ),
        rows=tuple(
            (dtype, place, count, total)
            for (dtype, place), (count, total) in sorted(
                totals.items(), key=lambda item: -item[1][1]
            )
        ),
    )


def _size_bytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for length in tensor.dims:
        count *= length
    four_bit = tensor.data_type in (
        onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1
    )  # fmt: skip
    if four_bit:
        return (count + 1) // 2
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _weights_folder(path: Path) -> Path:
    """Where external files are: the checkpoint's folder for an export, else beside the graph."""
    location = path.with_suffix(".location.yaml")
    if location.is_file():
        return Path(read_record(location, CheckpointLocation).folder)
    return path.parent


def _external_files(model: onnx.ModelProto, folder: Path) -> tuple[Table, tuple[str, ...]]:
    needed: dict[str, int] = {}
    tensors: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        place = external_range(tensor)
        if place is not None:
            length = place.length if place.length >= 0 else _size_bytes(tensor)
            end = place.offset + length
            needed[place.location] = max(needed.get(place.location, 0), end)
            tensors[place.location] += 1
    rows: list[tuple[Cell, ...]] = []
    notes = []
    for name, size_bytes in sorted(needed.items()):
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        state = "missing" if found is None else "ok" if found >= size_bytes else "too short"
        if found is None:
            notes.append(f"{name} is missing: the graph cannot run without it")
        rows.append((name, tensors[name], size_bytes, found, state))
    table = Table(
        title="external files",
        columns=(
            Column(name="file"),
            Column(name="tensors", unit="count"),
            Column(name="needed", unit="bytes"),
            Column(name="found", unit="bytes"),
            Column(name="state"),
        ),
        rows=tuple(rows),
    )
    return table, tuple(notes)
