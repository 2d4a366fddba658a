from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from segquant_trt.records import StepFigure
from segquant_trt.report.charts import Bar, bar_chart, sites_chart, steps_chart


def steps(*values: float, floor: float | None = 60.0) -> tuple[StepFigure, ...]:
    return tuple(
        StepFigure(timestep=float(100 * i), sqnr_db=value, sqnr_db_float16=floor)
        for i, value in enumerate(values)
    )


CHARTS = {
    "steps": lambda: steps_chart(steps(30.0, 25.0, 31.0, 33.0)),
    "one step": lambda: steps_chart(steps(30.0)),
    "no float16": lambda: steps_chart(steps(30.0, 29.0, floor=None)),
    "negative": lambda: steps_chart(steps(-4.0, -17.8)),
    "equal": lambda: steps_chart(steps(0.0, 0.0, floor=0.0)),
    "bars": lambda: bar_chart("latency", "Latency", (Bar(label="float", value=3.0, text="3 ms"),)),
    "zero bars": lambda: bar_chart("size", "Size", (Bar(label="float", value=0.0, text="0 B"),)),
    "sites": lambda: sites_chart((("down.0.to_q", 31.0), ("<b> & $x$", 40.0))),
    "one site": lambda: sites_chart((("a" * 200, 31.0),)),
}


def texts(svg: str) -> list[str]:
    return [str(node.text) for node in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_well_formed_and_deterministic(name: str) -> None:
    svg = CHARTS[name]()
    assert svg == CHARTS[name]()
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]


@pytest.mark.parametrize("name", CHARTS)
def test_charts_take_their_colours_from_the_page(name: str) -> None:
    fixed = set(re.findall(r"#[0-9a-f]{6}\b", CHARTS[name]()))
    assert fixed == set()
    assert "var(--accent)" in CHARTS[name]() or name == "bars" or name == "zero bars"


def test_charts_ignore_the_readers_own_style(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    before = CHARTS["steps"]()
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "path")
    assert CHARTS["steps"]() == before
    assert matplotlib.rcParams["font.size"] == 30.0


def test_ids_of_one_page_do_not_collide() -> None:
    ids = [re.findall(r'\bid="([^"]+)"', CHARTS[name]()) for name in ("steps", "bars", "sites")]
    flat = [one for found in ids for one in found]
    assert len(flat) == len(set(flat))
    svg = CHARTS["steps"]()
    references = re.findall(r"url\(#([^)]+)\)", svg)
    assert references
    assert set(references) <= set(ids[0])


def test_steps_run_from_noise_to_image_and_name_the_worst() -> None:
    words = texts(CHARTS["steps"]())
    assert "worst 25.0 dB" in words
    assert "float16 noise floor" in words
    numbers = [float(word) for word in words if re.fullmatch(r"\d+", word)]
    ticks = numbers[: numbers.index(0) + 1]
    assert ticks == sorted(ticks, reverse=True)


def test_missing_float16_floor_is_not_drawn() -> None:
    assert "float16 noise floor" not in texts(CHARTS["no float16"]())


def test_names_are_plain_text() -> None:
    assert "<b> & $x$" in texts(CHARTS["sites"]())
    (long,) = [word for word in texts(CHARTS["one site"]()) if word.endswith("aaaa")]
    assert long == "…" + "a" * 57


def test_names_of_lines_that_coincide_do_not_cover_each_other() -> None:
    def heights(floor: float) -> tuple[float, float]:
        svg = steps_chart(steps(60.0, 60.0, floor=floor))
        found = {
            text: float(y) for y, text in re.findall(r' y="([\d.]+)"[^>]*>([^<]+)</text>', svg)
        }
        return found["quantised"], found["float16 noise floor"]

    quantised, floor = heights(60.5)
    assert quantised > floor + 8  # y grows downwards
    quantised, floor = heights(59.5)
    assert floor > quantised + 8
    quantised, floor = heights(90.0)
    assert quantised > floor + 8
