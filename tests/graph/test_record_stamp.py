"""Records in a graph's metadata: read back as they were, and refused when damaged."""

from __future__ import annotations

import onnx
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.frozen_stamp import frozen_steps, stamp_frozen_steps
from segquant_trt.graph.hoisted_stamp import hoisted_prompt, stamp_hoisted_prompt
from segquant_trt.records import FrozenSteps, HoistedPrompt

FROZEN = FrozenSteps(
    schedule="DDIM:2",
    timestep="t",
    timesteps=(1.0, 501.0),
    sites=("fc",),
    macs_per_sample=10,
    fallback=True,
)
HOISTED = HoistedPrompt(
    inputs=("text",),
    values=("v", "m"),
    by_step=("m",),
    row_input="row",
    sites=("kv",),
    macs_per_sample=7,
    macs_share=0.25,
)


def test_both_are_read_back() -> None:
    model = onnx.ModelProto()
    assert frozen_steps(model) is None
    assert hoisted_prompt(model) is None
    stamp_frozen_steps(model, FROZEN)
    assert hoisted_prompt(model) is None
    stamp_hoisted_prompt(model, HOISTED)
    assert (frozen_steps(model), hoisted_prompt(model)) == (FROZEN, HOISTED)


@pytest.mark.parametrize("damage", ["{", '"text"', '{"schedule": "DDIM:2"}'])
def test_damaged_notes_are_refused(damage: str) -> None:
    model = onnx.ModelProto()
    stamp_frozen_steps(model, FROZEN)
    model.metadata_props[0].value = damage
    with pytest.raises(SegQuantError, match=r"metadata 'segquant_trt\.frozen_steps' is not"):
        frozen_steps(model)
