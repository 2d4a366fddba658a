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
    ("inputs", 5, "a path or None"),
    ("scheduler", 5, "text or None"),
    ("device", None, "text"),
    ("max_latency", 1.05, "text or None"),
    ("freeze_schedule", 20, "text or None"),
    ("weight_only", "yes", "True or False"),
    ("out", "run", "a path"),
    ("keep_float", ("",), "a tuple of patterns"),
    ("keep_float", "time_*", "a tuple of patterns"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED)
def test_refused_values_are_named(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(SegQuantError) as caught:
        CompileOptions(**{"out": OUT, name: value})
    assert name in caught.value.what
    assert repr(value) in caught.value.what
    assert allowed in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("name", ["inputs", "verify_inputs", "prompts", "rules", "costs"])
def test_files_that_are_not_there_are_named(name: str, tmp_path: Path) -> None:
    there = CompileOptions.from_keywords("m", OUT, **{name: str(tmp_path)})
    there.check_files()
    gone = CompileOptions.from_keywords("m", OUT, **{name: str(tmp_path / "gone")})
    with pytest.raises(SegQuantError, match=f"{name} is .*gone', which does not exist"):
        gone.check_files()


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


@pytest.mark.parametrize(
    ("given", "block"),
    [
        ({}, None),
        ({"weight_bits": 4}, None),
        ({"weight_bits": 4, "weight_block": "channel"}, None),
        ({"weight_bits": 4, "weight_only": True}, 32),
        ({"weight_bits": 4, "weight_only": True, "weight_block": "channel"}, None),
        ({"weight_bits": 4, "weight_only": True, "weight_block": "128"}, 128),
        ({"weight_bits": 8, "weight_only": True}, None),
        ({"weight_bits": 8, "weight_only": True, "weight_block": "64"}, 64),
    ],
)
def test_weights_come_in_blocks_where_that_is_how_kernels_want_them(given, block) -> None:
    assert CompileOptions(out=Path("run"), **given).block() == block


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"weight_only": True, "weight_block": "48"}, "allowed: channel, 16, 32, 64, 128, 256"),
        ({"weight_only": True, "weight_block": "row"}, "allowed: channel, 16, 32"),
        ({"weight_bits": 4, "weight_block": "32"}, "one weight scale per output channel"),
    ],
)
def test_impossible_blocks_are_refused(given, told) -> None:
    with pytest.raises(SegQuantError, match=told):
        CompileOptions(out=Path("run"), **given)
