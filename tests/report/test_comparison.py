"""Tables, picture and page of a comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from segquant_trt.records import LatencyFigure
from segquant_trt.records.comparison import (
    CaseFigures,
    Ceiling,
    Comparison,
    KernelTime,
    PairedRatio,
    SubjectFacts,
    SubjectFigures,
)
from segquant_trt.report.comparison_page import write_page
from segquant_trt.report.comparison_plot import pareto_points, write_plot
from segquant_trt.report.comparison_table import aligned, ceiling_text, comparison_text


def figures(name: str, median_ms: float, *, first: bool = False, **more: object) -> SubjectFigures:
    return SubjectFigures(
        subject=name,
        clock="wall",
        latency=LatencyFigure(
            median_ms=median_ms, p90_ms=median_ms * 1.25, p99_ms=median_ms * 1.5, runs=31
        ),
        speedup=None if first else PairedRatio(median=10 / median_ms, low=0.98, high=9.87),
        samples_per_s=2e3 / median_ms,
        answer_sqnr_db=None if first else 41.25,
        answer_equal=first,
        energy_j_per_call=more.get("energy"),  # type: ignore[arg-type]
    )


def facts(name: str, latent_sqnr_db: float | None = None, **more: object) -> SubjectFacts:
    return SubjectFacts(
        subject=name,
        kind="bundle",
        source="zoo:digits-flux",
        size_bytes=3_000_000,
        macs_integer_share=0.97,
        sqnr_db_mean=45.0,
        latent_sqnr_db=latent_sqnr_db,
        peak_memory_bytes=200_000_000,
        device_memory_bytes=more.get("device"),  # type: ignore[arg-type]
        kernels=more.get("kernels", ()),  # type: ignore[arg-type]
    )


CEILING = Ceiling(
    of="FLUX.1",
    macs=37_192_000_000_000,
    coded_share=0.8,
    attention_share=0.2,
    other_share=0.0,
    repeated_share=0.0,
    ratio=2.0,
    speedup_attention_16bit=1 / 0.6,
    speedup_attention_8bit=2.0,
)
CASE = CaseFigures(
    lengths={"batch": 2, "tokens": 16},
    shapes={"x": (2, 16, 4)},
    batch=2,
    subjects=(
        figures("float", 10.0, first=True),
        figures("slow & good", 8.0),
        figures("fast", 4.0),
        figures("beaten", 9.0),
    ),
    ceilings=(CEILING,),
)
COMPARISON = Comparison(
    reference="float",
    subjects=(
        facts("float"),
        facts("slow & good", 42.0),
        facts(
            "fast", 30.0, kernels=(KernelTime(name="<fc>", op="Gemm", ms_per_call=1.5, share=0.4),)
        ),
        facts("beaten", 35.0),
    ),
    cases=(CASE,),
    threads=1,
    seed=0,
    hardware={"cpu": "a CPU", "cores": "2"},
    versions={"python": "3.11"},
    notes=("something was left out",),
)


def test_every_table_has_both_times_and_the_ceiling_under_it() -> None:
    lines = comparison_text(COMPARISON).splitlines()
    assert lines[0] == "batch 2, tokens 16: 31 interleaved rounds, wall clock; relative to float"
    rows = {line.split("  ")[0].strip(): line for line in lines[2:6]}
    assert "10.0 ms" in rows["float"]
    assert "reference" in rows["float"]
    assert "4.00 ms" in rows["fast"]
    assert "2.50× [0.98, 9.87]" in rows["fast"]
    assert "41.2 dB" in rows["fast"] or "41.3 dB" in rows["fast"]
    assert lines[6].startswith("at most 1.67× over 16 bits, and 2.00× with attention in 8 bits")
    assert (
        "(80.0 % of 37192 G multiply-accumulates coded, attention 20.0 %, the rest 0.0 %)"
        in lines[6]
    )
    assert lines[-1] == "note: something was left out"
    assert any("1.50 ms" in line and "<fc>" in line for line in lines)


def test_second_products_are_told() -> None:
    text = ceiling_text(replace(CEILING, repeated_share=0.125))
    assert "coded and 12.5 % more for second products of polarities, attention" in text


def test_energy_has_a_column_only_where_it_was_measured() -> None:
    assert "energy" not in comparison_text(COMPARISON)
    case = replace(CASE, subjects=(*CASE.subjects[:2], figures("gpu", 2.0, energy=0.125)))
    text = comparison_text(replace(COMPARISON, cases=(case,)))
    assert "energy" in text
    assert "0.125 J" in text
    assert text.splitlines()[2].endswith("–")


def test_device_memory_is_told_beside_the_host_s() -> None:
    text = comparison_text(replace(COMPARISON, subjects=(facts("gpu", device=12_000_000),)))
    assert "200 MB + 12.0 MB on the GPU" in text


def test_columns_line_up() -> None:
    lines = aligned([("a", "b", "c"), ("long name", "1.5", "x"), ("n", "22.25", "yy")]).splitlines()
    assert lines == ["a              b  c", "long name    1.5  x", "n          22.25  yy"]


def test_the_front_is_what_no_other_beats_in_both() -> None:
    points = pareto_points(CASE, COMPARISON)
    assert [(point.subject, point.best) for point in points] == [
        ("fast", True),
        ("slow & good", True),
        ("beaten", False),
    ]
    assert (points[0].low_ms, points[0].high_ms) == (10.0 / 9.87, 10.0 / 0.98)


@pytest.mark.parametrize(
    ("suffix", "mark"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
@pytest.mark.parametrize("known", [True, False])
def test_the_picture_is_a_file_of_its_own(
    suffix: str, mark: bytes, known: bool, tmp_path: Path
) -> None:
    comparison = COMPARISON if known else replace(COMPARISON, subjects=(facts("float"),))
    paths = [tmp_path / f"{name}{suffix}" for name in ("first", "again")]
    for path in paths:
        write_plot(path, comparison)
    data = [path.read_bytes() for path in paths]
    assert data[0].startswith(mark)
    assert data[0] == data[1]
    if suffix == ".svg":
        text = data[0].decode()
        assert ("SQNR of the final latent" in text) is known
        assert "var(--" not in text
        assert "#0a0b0" not in text


def test_the_page_is_whole_and_escapes_names(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, COMPARISON)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text
    assert "&lt;fc&gt;" in text
    assert "slow &amp; good" in text
    assert ceiling_text(CEILING) in text
    assert text.count("<svg") == text.count("</svg>") == 2
    for part in text.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")
