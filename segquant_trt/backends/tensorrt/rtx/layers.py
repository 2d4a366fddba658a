"""Reads the layers that TensorRT-RTX prints at the end of a verbose build.

One block per engine, one line per layer, found by running version 1.7.1:

    Layers:
    Name: site_myl0_2, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [-1,256], Strides: ...,
    Datatype: Int8, Format: ... }], Constants: [...], Outputs: [...], TacticName: ..., StreamId: 0,
    Metadata: [ONNX Layer: site]\x1f[ONNX Layer: dq]

A block ends with an empty line. Names come from the graph and may hold brackets and commas too: a
name only ends where the next field's word stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from segquant_trt.errors import SegQuantError
from segquant_trt.records.layer_report import Layer, TensorUse

_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w*), Inputs: (?P<inputs>\[.*?\]), "
    r"Constants: (?P<constants>\[.*?\]), Outputs: (?P<outputs>\[.*?\]), "
    r"TacticName: (?P<tactic>.*?), StreamId: -?\d+(?:, \w+: -?\d+)*, Metadata: (?P<metadata>.*)"
)
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<dims>[-\d,]*)\](?:, Strides: \[[-\d,]*\])?"
    r"(?:, StrideOrder: \[[-\d,]*\])?(?:, VectorizedDim: -?\d+)?(?:, ComponentsPerElement: \d+)?"
    r", Datatype: (?P<dtype>[\w ]+), Format: [^}]*\}"
)
_MESSAGE = re.compile(r"\[[FEWIV]\] ")  # of the log's next message
_NODE_BEFORE, _NODE_AFTER, _BETWEEN = "[ONNX Layer: ", "]", "\x1f"
_DTYPES = {
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Int8": "int8",
    "FP8": "float8_e4m3fn",
    "Int4": "int4",
    "FP4": "float4_e2m1fn",
    "Int32": "int32",
    "Int64": "int64",
    "UInt8": "uint8",
    "Bool": "bool",
}


def parse_layers(log: str) -> tuple[Layer, ...]:
    """The layers of every block in a builder's log, in order.

    Raises:
        SegQuantError: there is no block, or a line of it is not understood.
    """
    lines = list(_block_lines(log))
    if not lines:
        raise SegQuantError(
            "the builder's log lists no layers",
            hint="build with profiling verbosity DETAILED and a verbose log",
        )
    return tuple(parse_layer(line) for line in lines)


def _block_lines(log: str) -> Iterator[str]:
    inside = False
    for line in log.split("\n"):  # names may hold what `splitlines` takes for an end of line
        if inside and line and not _MESSAGE.match(line):
            yield line
        else:
            inside = line.endswith("Layers:")


def parse_layer(line: str) -> Layer:
    """One line of the block.

    Raises:
        SegQuantError: it has another form than the known one.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        raise _unknown_form(line)
    return Layer(
        name=found["name"],
        kind=found["kind"],
        inputs=_tensors(found["inputs"]),
        constants=_tensors(found["constants"]),
        outputs=_tensors(found["outputs"]),
        tactic=found["tactic"],
        onnx_nodes=_nodes(found["metadata"]),
    )


def _tensors(text: str) -> tuple[TensorUse, ...]:
    uses: list[TensorUse] = []
    rest = text[1:-1].strip()
    while rest:
        found = _TENSOR.match(rest)
        if found is None:
            raise _unknown_form(rest)
        dims = tuple(int(length) for length in found["dims"].split(",") if length)
        dtype = found["dtype"].strip()
        uses.append(TensorUse(name=found["name"], dims=dims, dtype=_DTYPES.get(dtype, dtype)))
        rest = rest[found.end() :].removeprefix(", ")
    return tuple(uses)


def _unknown_form(text: str) -> SegQuantError:
    return SegQuantError(
        f"this part of the builder's log has an unknown form: {text[:200]}",
        hint="this program reads the reports of TensorRT-RTX 1.7; install that version",
    )


def _nodes(metadata: str) -> tuple[str, ...]:
    names = (
        entry.removeprefix(_NODE_BEFORE).removesuffix(_NODE_AFTER)
        for entry in metadata.split(_BETWEEN)
        if entry.startswith(_NODE_BEFORE)
    )
    return tuple(dict.fromkeys(names))
