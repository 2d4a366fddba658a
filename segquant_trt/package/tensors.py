"""A model's inputs and outputs in the words of a server's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segquant_trt.errors import SegQuantError
from segquant_trt.package.pbtxt import Message, Word
from segquant_trt.records import TensorSpec

SAMPLES = "batch"  # the axis of samples, in every family

_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """`axis` is the first one of the output and of every input but the `shared` ones.

    The shared ones lack it.
    A server that batches takes shared inputs once per sample. Without an axis it does not batch.
    """

    axis: str | None
    shared: tuple[str, ...] = ()


def batching_of(inputs: Sequence[TensorSpec], output: TensorSpec) -> Batching:
    """Which inputs have a row per sample."""
    shared = tuple(spec.name for spec in inputs if SAMPLES not in spec.shape)
    leads = all(
        spec.shape[:1] == (SAMPLES,) for spec in (*inputs, output) if spec.name not in shared
    )
    if not leads or len(shared) == len(inputs):
        return Batching(axis=None)
    return Batching(axis=SAMPLES, shared=shared)


def data_type(spec: TensorSpec) -> Word:
    """The configuration's name of a tensor's type.

    Raises:
        SegQuantError: the server has no such type.
    """
    if spec.dtype not in _TYPES:
        raise SegQuantError(
            f"'{spec.name}' has dtype {spec.dtype}; servers take {', '.join(_TYPES)}",
            hint="export the model with another --dtype",
        )
    return Word(_TYPES[spec.dtype])


def declaration(spec: TensorSpec, batching: Batching) -> Message:
    """An `input` or `output` entry: -1 for axes of any length, the batch axis left out.

    A tensor with no other axis is declared with one of length 1, which the server removes.
    """
    rest = sizes_of(spec, batching)
    dims = [size if isinstance(size, int) else -1 for size in rest]
    message = {"name": spec.name, "data_type": data_type(spec), "dims": dims or [1]}
    return message if dims else {**message, "reshape": {"shape": []}}


def sizes_of(spec: TensorSpec, batching: Batching) -> tuple[int | str, ...]:
    """The shape of one sample."""
    return spec.shape[1:] if batching.axis in spec.shape else spec.shape
