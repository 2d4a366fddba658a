"""Records noted in a graph's metadata."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import from_plain, to_plain

T = TypeVar("T")


def stamp_record(model: onnx.ModelProto, key: str, record: Any) -> None:
    """Note a record in the model's metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = key, json.dumps(to_plain(record), sort_keys=True)


def stamped_record(model: onnx.ModelProto, key: str, kind: type[T]) -> T | None:
    """The record that is noted under `key`; None where none is.

    Raises:
        SegQuantError: the note is damaged.
    """
    noted = next((entry.value for entry in model.metadata_props if entry.key == key), None)
    if noted is None:
        return None
    try:
        plain = json.loads(noted)
    except ValueError as error:
        raise SegQuantError(
            f"the graph's metadata '{key}' is not valid JSON: {error}",
            hint="run 'segquant-trt rewrite' again",
        ) from error
    return from_plain(plain, kind, origin=f"the graph's metadata '{key}'")
