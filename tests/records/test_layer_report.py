"""Reports of engines' layers, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import encode_yaml, from_plain, read_record, to_plain, write_record
from segquant_trt.records.layer_report import Layer, LayerReport, TensorUse

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
USES = st.lists(
    st.builds(
        TensorUse,
        name=TEXT,
        dims=st.lists(st.integers(-1, 2**40), max_size=4).map(tuple),
        dtype=st.sampled_from(["int8", "float16", "float8_e4m3fn"]),
    ),
    max_size=3,
).map(tuple)
LAYERS = st.builds(
    Layer, name=TEXT, kind=TEXT, inputs=USES, constants=USES, outputs=USES, tactic=TEXT,
    onnx_nodes=st.lists(TEXT, max_size=3).map(tuple),
)  # fmt: skip
COUNT = st.integers(0, 2**40)
REPORTS = st.builds(
    LayerReport, builder=TEXT, version=TEXT, capability=st.sampled_from(["sm_80", "sm_120"]),
    engine_bytes=COUNT, weights_bytes=COUNT, scratch_bytes=COUNT,
    seconds=st.floats(0.0, 1e6), layers=st.lists(LAYERS, max_size=3).map(tuple),
    warnings=st.lists(TEXT, max_size=2).map(tuple),
)  # fmt: skip


@given(report=REPORTS)
def test_plain_values_and_back(report: LayerReport) -> None:
    assert from_plain(to_plain(report), LayerReport, origin="here") == report


@given(report=REPORTS)
def test_written_twice_is_the_same(report: LayerReport) -> None:
    assert encode_yaml(report) == encode_yaml(report)


def made_up() -> LayerReport:
    use = TensorUse(name="x: [1]", dims=(-1, 77), dtype="int8")
    layer = Layer(
        name="a, b", kind="gemm", inputs=(use,), constants=(), outputs=(use, use), tactic="",
        onnx_nodes=("a", "b"),
    )  # fmt: skip
    return LayerReport(
        builder="tensorrt-rtx", version="1.7", capability="sm_89", engine_bytes=3, weights_bytes=2,
        scratch_bytes=1, seconds=0.5, layers=(layer, layer), warnings=("odd\nlines",),
    )  # fmt: skip


def test_a_file_and_back(tmp_path: Path) -> None:
    write_record(tmp_path / "layers.yaml", made_up())
    assert read_record(tmp_path / "layers.yaml", LayerReport) == made_up()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema_version: 1", "schema_version: 2", "schema_version 2"),
        ("engine_bytes: 3", "engine_bytes: many", "expected int"),
        ("weights_bytes: 2\n", "", "weights_bytes"),
        ("scratch_bytes: 1", "scratch_bytes: 1\nextra: 1", "extra"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "layers.yaml"
    write_record(path, made_up())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(SegQuantError, match=message):
        read_record(path, LayerReport)
