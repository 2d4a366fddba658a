"""Records survive a round trip, and bad files are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    Considered,
    DualFull,
    DualScale,
    Fp8,
    KeepFloat,
    PerStep,
    PerToken,
    Prediction,
    QuantPlan,
    SegmentPlan,
    Shifted,
    SignMagnitude,
    SitePlan,
    Smoothing,
    SparseDual,
    Static,
    Symmetric,
    Treatment,
    WeightPlan,
)
from segquant_trt.records.codec import encode_yaml, read_record, read_yaml, write_record
from segquant_trt.records.rules import Rules

floats = st.floats(width=32, min_value=2.0**-100, max_value=2.0**100)
texts = st.text(max_size=20).filter(lambda text: text.isprintable())
schemes = st.one_of(
    st.builds(Symmetric, scale=floats),
    st.builds(Shifted, scale=floats, zero_shift=st.integers(-127, 128)),
    st.builds(DualScale, positive_scale=floats, negative_scale=floats),
    st.builds(DualFull, positive_scale=floats, negative_scale=floats),
    st.builds(SignMagnitude, scale=floats),
    st.builds(SparseDual, scale=floats, ratio=st.integers(1, 8)),
    st.builds(Fp8, scale=floats),
    st.just(KeepFloat()),
)
factors = st.one_of(
    st.just(Static()),
    st.just(PerToken()),
    st.builds(PerStep, edges=st.just((0.0, 10.0)), factors=st.tuples(floats, floats)),
)
treatments = st.builds(
    Treatment,
    segments=st.lists(
        st.builds(SegmentPlan, channels=st.integers(1, 99), activation=schemes, factor=factors),
        min_size=1,
        max_size=3,
    ).map(tuple),
    smoothing=st.none()
    | st.builds(
        Smoothing, divisor=texts, alpha=st.none() | floats, segment_exponent=st.none() | floats
    ),
    weight=st.none()
    | st.builds(
        WeightPlan,
        bits=st.sampled_from((4, 8)),
        block=st.none() | st.integers(16, 128),
        rounding=st.sampled_from(("nearest", "gptq")),
        scale_method=st.sampled_from(("absmax", "mse")),
        codes=st.none() | texts,
    ),
)
sites = st.builds(
    SitePlan,
    site=texts,
    module=st.none() | texts,
    treatment=treatments,
    output_channels=st.none() | texts,
    output_range=st.none() | st.tuples(floats, floats).map(lambda pair: (min(pair), max(pair))),
    macs_per_sample=st.integers(0, 2**50),
    why=texts,
    considered=st.lists(
        st.builds(
            Considered,
            option=texts,
            sqnr_db=st.none() | floats,
            cost_ms=st.none() | floats,
            reason=texts,
        ),
        max_size=2,
    ).map(tuple),
)


def plan_of(*decided: SitePlan) -> QuantPlan:
    return QuantPlan(
        target="onnxruntime",
        preset="plain",
        onnx_sha256="a" * 64,
        facts_sha256="b" * 64,
        calibration_sha256="c" * 64,
        sites=decided,
    )


ONE_SITE = plan_of(
    SitePlan(
        site="node_1",
        module="blocks.0",
        treatment=Treatment(
            segments=(SegmentPlan(channels=4, activation=Shifted(scale=0.1, zero_shift=3)),),
            weight=WeightPlan(),
        ),
        output_range=(-1.0, 2.0),
        macs_per_sample=10,
        why="because",
        considered=(),
    )
)


@given(st.lists(sites, max_size=3))
def test_plans_survive_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, decided: list[SitePlan]
) -> None:
    path = tmp_path_factory.mktemp("codec") / "plan.yaml"
    plan = plan_of(*decided)
    write_record(path, plan)
    assert read_record(path, QuantPlan) == plan
    assert encode_yaml(read_record(path, QuantPlan)) == path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: shifted", "kind: thrice", "thrice"),
        ("zero_shift: 3", "zero_shift: 3.5", "zero_shift"),
        ("why: because", "reason: because", "reason"),
        ("bits: 8", "bits: 7", "7 is unknown; allowed: 4, 8 @"),
        ("target: onnxruntime", "target: abacus", "openvino, tensorrt-rtx @ $.target"),
        ("schema_version: 2", "schema_version: 99", "schema_version 99"),
        ("smoothing: null", "smoothing: much", "expected keys and values @"),
        ("sites:", "sites: [", "YAML"),
        ("macs_per_sample: 10", "macs_per_sample: yes", "macs_per_sample"),
    ],
)
def test_edits_that_make_no_sense_are_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "plan.yaml"
    text = encode_yaml(ONE_SITE).decode()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SegQuantError) as refused:
        read_record(path, QuantPlan)
    assert str(path) in refused.value.what
    assert said in refused.value.what


def test_missing_binary_and_truncated_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    with pytest.raises(SegQuantError, match="does not exist"):
        read_record(path, QuantPlan)
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(SegQuantError, match="not a text file"):
        read_record(path, QuantPlan)
    path.unlink()
    path.mkdir()
    with pytest.raises(SegQuantError, match="cannot be read: Is a directory"):
        read_record(path, QuantPlan)
    path.rmdir()
    path.write_bytes(encode_yaml(ONE_SITE)[:150])
    with pytest.raises(SegQuantError, match=r"plan\.yaml"):
        read_record(path, QuantPlan)


@pytest.mark.parametrize(
    "given_range",
    ["[.nan, 1.0]", "[-1.0, .inf]", "[-.inf, 1.0]", "[2.0, -1.0]", "[-1.0, 1.0e+300]"],
)
def test_output_ranges_that_no_code_covers_are_refused_by_site(
    tmp_path: Path, given_range: str
) -> None:
    path = tmp_path / "plan.yaml"
    text = encode_yaml(ONE_SITE).decode()
    assert "output_range: [-1.0, 2.0]" in text
    path.write_text(text.replace("output_range: [-1.0, 2.0]", f"output_range: {given_range}"))
    with pytest.raises(SegQuantError) as refused:
        read_record(path, QuantPlan)
    assert "site 'node_1'" in refused.value.what
    assert "output_range" in refused.value.what


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "{a: " * 100_000])
def test_bottomless_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(SegQuantError, match="more than 64 deep"):
        read_record(path, QuantPlan)


def test_a_date_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("why: 2001-99-99")
    with pytest.raises(SegQuantError, match="is not valid YAML"):
        read_record(path, QuantPlan)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("target: onnxruntime", "target: onnxruntime\ntarget: openvino", "target"),
        ("macs_per_sample: 10", "macs_per_sample: 10\n  'macs_per_sample': 20", "macs_per_sample"),
    ],
)
def test_a_key_that_stands_twice_is_refused_by_name(
    tmp_path: Path, old: str, new: str, key: str
) -> None:
    path = tmp_path / "plan.yaml"
    text = encode_yaml(ONE_SITE).decode()
    assert old in text
    line = text[: text.index(old)].count("\n") + 1
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SegQuantError) as refused:
        read_record(path, QuantPlan)
    assert f"'{key}' twice in one mapping, in lines {line} and {line + 1}" in refused.value.what


def test_a_rule_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("schema_version: 1\nrules:\n- {sites: '*', keep_float: true, sites: 'a*'}\n")
    with pytest.raises(SegQuantError, match="'sites' twice in one mapping, in lines 3 and 3"):
        read_record(path, Rules)


def test_aliases_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text("a: &same {k: 1}\nb: [*same, *same]\n'1': x\n1: y\n")
    assert read_yaml(path) == {"a": {"k": 1}, "b": [{"k": 1}, {"k": 1}], "1": "x", 1: "y"}
    path.write_text("")
    assert read_yaml(path) is None


@pytest.mark.parametrize("text", ["text", "3", "[1, 2]", "null", ""])
def test_what_has_no_keys_is_no_record(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text)
    with pytest.raises(SegQuantError, match="is not a valid Prediction: expected keys and values"):
        read_record(path, Prediction)
