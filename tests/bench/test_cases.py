"""Sizes that are swept, inputs that are made or read, and what is not compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from segquant_trt.bench.cases import (
    Interface,
    Sweep,
    batch_of,
    cases_of,
    check_alike,
    lengths_of_shapes,
    made_inputs,
    merged,
    read_inputs,
)
from segquant_trt.errors import SegQuantError
from segquant_trt.models import FAMILIES
from segquant_trt.records import AxisRange, TensorSpec


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


IMAGES = Interface(
    inputs=(spec("sample", "batch", 4, "height", "width"), spec("t", "batch", dtype="int64")),
    axes=(
        AxisRange(name="batch", minimum=1, typical=2, maximum=4),
        AxisRange(name="height", minimum=4, typical=16, maximum=64, multiple=4),
        AxisRange(name="width", minimum=4, typical=16, maximum=64, multiple=4),
    ),
)
PACKED = Interface(
    inputs=(spec("latents", "batch", "tokens", 64),),
    axes=(
        AxisRange(name="batch", minimum=1, typical=2, maximum=4),
        AxisRange(name="tokens", minimum=1, typical=16, maximum=4096),
    ),
)


def test_a_sweep_has_every_combination_and_typical_lengths_for_the_rest() -> None:
    cases = cases_of(IMAGES, Sweep(axes={"height": (8, 32), "width": (4,), "batch": (1, 2, 4)}))
    found = [(case["batch"], case["height"], case["width"]) for case in cases]
    assert found == [(b, h, 4) for b in (1, 2, 4) for h in (8, 32)]


def test_a_length_that_is_given_twice_is_one_case() -> None:
    assert len(cases_of(IMAGES, Sweep(axes={"batch": (1, 2, 1)}))) == 2


@pytest.mark.parametrize("edge", ["height", "width"])
def test_one_edge_alone_means_squares(edge: str) -> None:
    cases = cases_of(IMAGES, Sweep(axes={edge: (8, 32)}))
    assert [(case["height"], case["width"]) for case in cases] == [(8, 8), (32, 32)]


def test_nothing_swept_is_one_case_of_typical_lengths() -> None:
    assert cases_of(IMAGES, Sweep(axes={})) == [{"batch": 2, "height": 16, "width": 16}]


@pytest.mark.parametrize(
    ("axes", "tokens"),
    [
        ({"height": (32, 64)}, [256, 1024]),
        ({"width": (6,)}, [9]),
        ({"height": (8,), "width": (4, 16)}, [8, 32]),
        ({"tokens": (35,)}, [35]),
    ],
)
def test_latents_are_counted_in_tokens_where_they_are_packed(
    axes: dict[str, tuple[int, ...]], tokens: list[int]
) -> None:
    assert [case["tokens"] for case in cases_of(PACKED, Sweep(axes=axes))] == tokens


@pytest.mark.parametrize(
    ("interface", "axes", "message"),
    [
        (PACKED, {"height": (7,)}, "7x7 cannot be packed"),
        (PACKED, {"height": (8,), "tokens": (16,)}, "so does --axis tokens"),
        (IMAGES, {"depth": (2,)}, "no input has an axis 'depth'; axes: batch, height, width"),
        (Interface(inputs=(spec("x", "rows", 3),)), {}, "axis 'rows' of input 'x' has no length"),
    ],
)
def test_axes_that_make_no_case(
    interface: Interface, axes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(SegQuantError, match=message):
        cases_of(interface, Sweep(axes=axes))


@pytest.mark.parametrize("lengths", [(), (0,), (4, -1)])
def test_lengths_below_one_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(SegQuantError, match="allowed: whole numbers from 1"):
        Sweep(axes={"batch": lengths})


def test_given_shapes_become_lengths_of_axes() -> None:
    found = lengths_of_shapes(IMAGES, {"sample": (3, 4, 8, 12), "t": (3,)})
    assert found == {"batch": [3], "height": [8], "width": [12]}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": (1,)}, "names an input 'y'; there are sample, t"),
        ({"sample": (3, 5, 8, 8)}, r"has shape \(3, 5, 8, 8\); allowed: \(batch, 4, height"),
        ({"sample": (3, 4, 8)}, r"has shape \(3, 4, 8\)"),
        ({"sample": (3, 4, 8, 8), "t": (2,)}, "gives axis 'batch' the lengths 3 and 2"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(SegQuantError, match=message):
        lengths_of_shapes(IMAGES, shapes)


def test_made_inputs_are_seeded_and_of_the_right_kind() -> None:
    lengths = {"batch": 3, "height": 8, "width": 12}
    found = made_inputs(IMAGES, lengths, seed=5)
    assert found["sample"].shape == (3, 4, 8, 12)
    assert found["sample"].dtype == np.float32
    assert 0.8 < found["sample"].std() < 1.2
    assert found["t"].dtype == np.int64
    again, other = (made_inputs(IMAGES, lengths, seed=seed) for seed in (5, 6))
    np.testing.assert_array_equal(found["sample"], again["sample"])
    assert not np.array_equal(found["sample"], other["sample"])
    assert batch_of(IMAGES, found) == 3


def test_sizes_that_the_model_does_not_take_are_refused() -> None:
    with pytest.raises(SegQuantError, match="has batch 5; allowed: 1 to 4"):
        made_inputs(IMAGES, {"batch": 5, "height": 8, "width": 8}, seed=0)


def test_a_known_family_makes_its_own_inputs() -> None:
    family = next(one for one in FAMILIES if one.name == "flux")
    config = family.complete({"guidance_embeds": True})
    known = Interface(
        inputs=family.inputs(config),
        axes=family.sizes(config),
        class_name=family.class_name,
        config=config,
    )
    lengths = {"batch": 1, "tokens": 12, "text": 5}
    found = made_inputs(known, lengths, seed=0)
    np.testing.assert_array_equal(found["txt_ids"], np.zeros((5, 3), dtype=np.float32))
    assert 0.0 <= float(found["timestep"][0]) <= 1.0
    stranger = Interface(
        inputs=PACKED.inputs, axes=PACKED.axes, class_name=family.class_name, config={}
    )
    assert set(made_inputs(stranger, {"batch": 1, "tokens": 4}, seed=0)) == {"latents"}


def good() -> dict[str, np.ndarray]:
    return {
        "sample": np.ones((2, 4, 8, 8), dtype=np.float32),
        "t": np.array([1, 2], dtype=np.int64),
    }


def test_read_inputs_come_back_as_they_were(tmp_path: Path) -> None:
    save_file(good(), tmp_path / "call.safetensors")
    found = read_inputs(tmp_path / "call.safetensors", IMAGES)
    assert all(np.array_equal(found[name], array) for name, array in good().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": None}, "holds sample; the subjects take sample, t"),
        ({"other": np.ones(2, dtype=np.float32)}, "holds other, sample, t"),
        ({"t": np.array([1, 2, 3])}, "has batch 3, but 'sample' has batch 2"),
        ({"sample": np.full((2, 4, 8, 8), np.nan, dtype=np.float32)}, "holds NaN or infinity"),
        ({"sample": np.full((2, 4, 8, 8), np.inf, dtype=np.float16)}, "holds NaN or infinity"),
    ],
)
def test_bad_inputs_are_named(
    change: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    merged_inputs = {**good(), **change}
    kept = {name: array for name, array in merged_inputs.items() if array is not None}
    save_file(kept, tmp_path / "call.safetensors")
    with pytest.raises(SegQuantError, match=message):
        read_inputs(tmp_path / "call.safetensors", IMAGES)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_unreadable_inputs_are_one_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "call.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SegQuantError, match="is no readable safetensors file"):
        read_inputs(path, IMAGES)


def test_subjects_of_one_model_are_alike_whatever_their_float_type() -> None:
    half = Interface(
        inputs=(spec("sample", 2, 4, 8, 8, dtype="float16"), spec("t", "n", dtype="int32"))
    )
    check_alike(("a", IMAGES), ("b", half))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ((spec("sample", "b", 4, "h", "w"),), "a takes an input 't', b does not"),
        (
            (spec("sample", "b", 8, "h", "w"), spec("t", "b", dtype="int64")),
            r"of a is float32\[batch, 4, height, width\], of b float32\[b, 8, h, w\]",
        ),
        ((spec("sample", "b", 4, "h"), spec("t", "b", dtype="int64")), "input 'sample' of a"),
        ((spec("sample", "b", 4, "h", "w"), spec("t", "b")), "input 't' of a is int64"),
    ],
)
def test_unequal_inputs_are_not_set_side_by_side(
    other: tuple[TensorSpec, ...], message: str
) -> None:
    with pytest.raises(SegQuantError, match=message):
        check_alike(("a", IMAGES), ("b", Interface(inputs=other)))


def test_the_interface_of_which_most_is_known_speaks_for_all() -> None:
    plain = Interface(inputs=IMAGES.inputs)
    assert merged([plain, IMAGES]) is IMAGES
