"""Reads the layers that TensorRT-RTX prints at the end of a verbose build.

One block per engine, one line per layer, found by running version 1.7.1:

    Layers:
    Name: site_myl0_2, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [-1,256], Strides: ...,
    Datatype: Int8, Format: ... }], Constants: [...], Outputs: [...], TacticName: ..., StreamId: 0,
    Metadata: [ONNX Layer: site]\x1f[ONNX Layer: dq]

Names come from the graph and may hold any of these words, so a line is read field by field from
the left with the fields' own order, and names only end where the next field begins.
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
    r", Datatype: (?P<dtype>[\w ]+)"
)
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
        if inside and line.startswith("Name: "):
            yield line
        else:
            inside = line.rstrip().endswith("Layers:")


def parse_layer(line: str) -> Layer:
    """One line of the block.

    Raises:
        SegQuantError: it has another form than the known one.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        raise SegQuantError(
            f"this line of the builder's log has an unknown form: {line[:200]}",
            hint="this program reads the reports of TensorRT-RTX 1.7; install that version",
        )
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
    return tuple(
        TensorUse(
            name=found["name"],
            dims=tuple(int(length) for length in found["dims"].split(",") if length),
            dtype=_DTYPES.get(found["dtype"].strip(), found["dtype"].strip()),
        )
        for found in _TENSOR.finditer(text)
    )


def _nodes(metadata: str) -> tuple[str, ...]:
    names = (
        entry.removeprefix(_NODE_BEFORE).removesuffix(_NODE_AFTER)
        for entry in metadata.split(_BETWEEN)
        if entry.startswith(_NODE_BEFORE)
    )
    return tuple(dict.fromkeys(names))
