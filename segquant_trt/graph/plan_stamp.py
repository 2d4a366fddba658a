"""The plan that a rewritten graph was made from, noted in the graph itself."""

from __future__ import annotations

from pathlib import Path

import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.records import QuantPlan
from segquant_trt.records.codec import encode_yaml
from segquant_trt.records.files import sha256_bytes

_KEY = "segquant_trt.plan_sha256"


def stamp_plan(model: onnx.ModelProto, plan: QuantPlan) -> None:
    """Note the plan's digest in the model's metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = _KEY, sha256_bytes(encode_yaml(plan))


def check_plan_stamp(model: onnx.ModelProto, plan: QuantPlan, path: Path) -> None:
    """Check that the graph was made from this very plan.

    Raises:
        SegQuantError: it was made from another one.
    """
    stamped = {entry.key: entry.value for entry in model.metadata_props}.get(_KEY)
    if stamped != sha256_bytes(encode_yaml(plan)):
        raise SegQuantError(
            f"{path} was made from another plan than plan.yaml is now",
            hint="run 'segquant-trt rewrite' again, then 'build'",
        )
