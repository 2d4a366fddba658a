"""What an engine builder made of a graph: its layers, with the types that they compute in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorUse:
    """A tensor that a layer reads or writes.

    `dims`: -1 where the length is only known at run time. `dtype`: NumPy's or ml_dtypes' name.
    """

    name: str
    dims: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kernel call, or one step on the host.

    `kind` and `tactic` are the builder's own words; `onnx_nodes` are the names of the nodes that
    the layer computes something of, each once, in the builder's order.
    """

    name: str
    kind: str
    inputs: tuple[TensorUse, ...]
    constants: tuple[TensorUse, ...]
    outputs: tuple[TensorUse, ...]
    tactic: str
    onnx_nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """An engine's layers in the order of their execution.

    `seconds`: what the builder took. `scratch_bytes`: the largest workspace of one layer.
    `warnings`: the builder's and the parser's, each once.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    builder: str
    version: str
    capability: str
    engine_bytes: int
    weights_bytes: int
    scratch_bytes: int
    seconds: float
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...] = ()
