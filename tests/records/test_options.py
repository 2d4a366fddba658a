"""The options record: defaults, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records.options import CompileOptions

OUT = Path("run")

REFUSED = [
    ("target", "npu", "allowed: onnxruntime, openvino"),
    ("dtype", "int8", "allowed: float32, float16, bfloat16"),
    ("range_method", "max", "allowed: amax, percentile, mse"),
    ("weight_scales", "amax", "allowed: absmax, mse"),
    ("num_samples", 0, "a whole number from 1"),
    ("steps", 2.0, "a whole number from 1"),
    ("steps", True, "a whole number from 1"),
    ("height", -8, "a whole number from 1"),
    ("width", 65_537, "to 65536"),
    ("seed", -1, "a whole number from 0"),
    ("seed", None, "a whole number from 0"),
    ("threads", 0, "a whole number from 1"),
    ("guidance_scale", float("nan"), "finite"),
    ("guidance_scale", -0.5, "not negative"),
    ("guidance_scale", "3", "finite"),
    ("target_sqnr", float("nan"), "finite"),
    ("target_sqnr", float("inf"), "finite"),
    ("model", "  ", "a zoo name, a folder or a hub id"),
    ("model", 7, "a zoo name, a folder or a hub id"),
    ("keep_float", ("",), "a tuple of patterns"),
    ("keep_float", "time_*", "a tuple of patterns"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED)
def test_refused_values_are_named(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(SegQuantError) as caught:
        CompileOptions(out=OUT, **{name: value})
    assert name in caught.value.what
    assert repr(value) in caught.value.what
    assert allowed in caught.value.what
    assert caught.value.hint


def test_limits_are_allowed() -> None:
    options = CompileOptions(out=OUT, steps=1, width=65_536, seed=0, guidance_scale=0)
    assert (options.steps, options.width, options.guidance_scale) == (1, 65_536, 0)


def test_keywords_of_the_api() -> None:
    options = CompileOptions.from_keywords(
        "zoo:digits-flux", "run", inputs="x.safetensors", keep_float=["a", "b*"], steps=4
    )
    assert options == CompileOptions(
        model="zoo:digits-flux",
        out=OUT,
        inputs=Path("x.safetensors"),
        keep_float=("a", "b*"),
        steps=4,
    )


def test_unknown_keyword_lists_the_known() -> None:
    with pytest.raises(SegQuantError, match=r"no option 'step'.*steps"):
        CompileOptions.from_keywords("zoo:digits-flux", "run", step=4)
