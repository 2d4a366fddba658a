"""What an engine is made of, from TensorRT's engine inspector, and the proof of its precisions.

TensorRT 10 and 11 describe layers in JSON of two forms:

    10: {"Layers": [...], "Bindings": [...]}      tensors with "Format/Datatype"
    11: {"Layers": [...], "I/O Tensors": [...]}   tensors with "Format" and "DataType"

Layers are objects only where the engine was built with profiling verbosity DETAILED.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segquant_trt.backends.tensorrt.rtx.prove import EngineProof, prove
from segquant_trt.errors import SegQuantError
from segquant_trt.records.layer_report import Layer, LayerReport, TensorUse

if TYPE_CHECKING:
    import tensorrt as trt

_TENSORS = ("Bindings", "I/O Tensors")
_NODE = re.compile(r"\[ONNX Layer: (?P<name>.*?)\](?=\x1e|\x1f|\[|$)", re.DOTALL)
# Words of both versions' descriptions, the longer before those that they contain.
_DTYPES: tuple[tuple[str, str], ...] = (
    (r"BF16|BFloat16", "bfloat16"),
    (r"FP16|Half|Float16", "float16"),
    (r"FP8|Float8\w*|E4M3\w*", "float8_e4m3fn"),
    (r"FP4|Float4\w*|E2M1\w*", "float4_e2m1fn"),
    (r"E8M0\w*", "float8_e8m0fnu"),
    (r"FP32|Float32|Float", "float32"),
    (r"UINT8", "uint8"),
    (r"INT8", "int8"),
    (r"INT4", "int4"),
    (r"INT32", "int32"),
    (r"INT64", "int64"),
    (r"BOOL", "bool"),
)
_DTYPE = re.compile(
    "|".join(f"(?P<t{index}>{words})" for index, (words, _) in enumerate(_DTYPES)), re.IGNORECASE
)
# What multiplies, in the words of `LayerType` and, of older layers, of `ParameterType`.
_PRODUCTS: tuple[tuple[str, str], ...] = (
    (r"conv|correlation", "correlation"),
    (r"gemm|matrix_?multiply|matmul|fully_?connected", "gemm"),
)
_KINDS = frozenset(kind for _, kind in _PRODUCTS)
_AGAIN = "give the file that the build wrote, or build the engine again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """An engine's layers, and what it says of its inputs and outputs by name."""

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]


def inspect_engine(module: Any, engine: trt.ICudaEngine) -> str:
    """The inspector's JSON, as it is.

    Raises:
        SegQuantError: the inspector gives nothing.
    """
    inspector: trt.EngineInspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    if not text:
        raise SegQuantError(
            "TensorRT's engine inspector says nothing of the engine",
            hint="build it again with this program, which asks for detailed layers",
        )
    return str(text)


def parse_inspection(text: str) -> Inspection:
    """Layers from the inspector's JSON, of TensorRT 10 or 11.

    Raises:
        SegQuantError: it is no such JSON, or lists layers by name only.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SegQuantError(
            f"what should be the inspector's JSON is none: {error}", hint=_AGAIN
        ) from error
    layers = found.get("Layers") if isinstance(found, dict) else None
    if not isinstance(layers, list):
        raise SegQuantError("the inspector's JSON has no list 'Layers'", hint=_AGAIN)
    if any(not isinstance(layer, dict) for layer in layers):
        raise SegQuantError(
            "the engine's layers have names only: it was built without detailed profiling "
            "verbosity, and no precision can be proved of it",
            hint="build it again with this program, or with trtexec --profilingVerbosity=detailed",
        )
    names: list[Any] = next(
        (found[key] for key in _TENSORS if isinstance(found.get(key), list)), []
    )
    return Inspection(
        layers=tuple(_layer(layer) for layer in layers),
        tensors=tuple(str(each["Name"] if isinstance(each, dict) else each) for each in names),
    )


def _layer(entry: Mapping[str, Any]) -> Layer:
    return Layer(
        name=str(entry.get("Name", "")),
        kind=str(entry.get("LayerType", "")),
        inputs=_uses(entry.get("Inputs", ())),
        constants=(*_uses(entry.get("Constants", ())), *_weights(entry)),
        outputs=_uses(entry.get("Outputs", ())),
        tactic=str(entry.get("TacticName", "")),
        onnx_nodes=_nodes(str(entry.get("Metadata", ""))),
    )


def _uses(entries: Iterable[Mapping[str, Any]]) -> tuple[TensorUse, ...]:
    return tuple(
        TensorUse(
            name=str(entry.get("Name", "")),
            dims=tuple(int(length) for length in entry.get("Dimensions", ())),
            dtype=data_type(_described(entry)),
        )
        for entry in entries
    )


def _described(entry: Mapping[str, Any]) -> str:
    for key in ("DataType", "Datatype", "Format/Datatype", "Format"):
        if key in entry:
            return str(entry[key])
    return ""


def _weights(entry: Mapping[str, Any]) -> tuple[TensorUse, ...]:
    """Weights of a convolution or product, which layers of their own form carry as a count."""
    weights = entry.get("Weights")
    if not isinstance(weights, dict) or not weights.get("Count"):
        return ()
    count, outputs = int(weights["Count"]), int(entry.get("OutMaps", 1) or 1)
    shape = (outputs, count // outputs) if count % outputs == 0 else (1, count)
    return (TensorUse(name="Weights", dims=shape, dtype=data_type(str(weights.get("Type", "")))),)


def data_type(description: str) -> str:
    """NumPy's or ml_dtypes' name of the type that a description speaks of, else the description.

    "Thirty-two wide channel vectorized row major Int8 format" is int8.
    """
    found = _DTYPE.search(description)
    if found is None or found.lastgroup is None:
        return description
    return _DTYPES[int(found.lastgroup[1:])][1]


def _nodes(metadata: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(match["name"] for match in _NODE.finditer(metadata)))


def product_kind(layer: Layer) -> str:
    """`gemm` or `correlation` for layers that multiply, whatever this version calls them."""
    words = f"{layer.kind} {layer.tactic}" if layer.kind in ("", "Myelin") else layer.kind
    for pattern, kind in _PRODUCTS:
        if re.search(pattern, words, re.IGNORECASE):
            return kind
    return layer.kind


def prove_sites(report: LayerReport, sites: Mapping[str, Sequence[str]]) -> dict[str, EngineProof]:
    """How each planned site is computed.

    Args:
        report: of the engine.
        sites: by site, the ONNX names of its products.
    """
    layers = tuple(_named_alike(layer) for layer in report.layers)
    return prove(replace(report, layers=layers), sites)


def _named_alike(layer: Layer) -> Layer:
    kind = product_kind(layer)
    weights = [use for use in layer.constants if len(use.dims) > 1]
    if kind not in _KINDS or len((*layer.inputs, *weights)) != 1:
        return replace(layer, kind=kind)
    # Layers of their own form do not list every weight. Both operands of a strongly typed
    # product have one type, so that of the other operand is known.
    unseen = TensorUse(name="(weight)", dims=(-1, -1), dtype=(*layer.inputs, *weights)[0].dtype)
    return replace(layer, kind=kind, constants=(*layer.constants, unseen))


def check_sites(proofs: Mapping[str, EngineProof], *, allow_fallback: bool) -> tuple[str, ...]:
    """Sites that are not computed in 8 bits, each with what computes it.

    Raises:
        SegQuantError: there are some, and they are not allowed.
    """
    fallen = tuple(f"{site}: {proof.kernel}" for site, proof in proofs.items() if not proof.integer)
    if fallen and not allow_fallback:
        listed = "\n    ".join(fallen[:10])
        more = f"\n    and {len(fallen) - 10} more" if len(fallen) > 10 else ""
        raise SegQuantError(
            f"{len(fallen)} of {len(proofs)} planned sites are not computed in 8 bits:\n    "
            f"{listed}{more}",
            hint="'segquant-trt lint' says which rule they break; --allow-fallback accepts them",
        )
    return fallen
