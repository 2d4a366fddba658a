from __future__ import annotations

import math

import pytest

from segquant_trt.report import numerals


@pytest.mark.parametrize(
    ("value", "text"),
    [(31.42, "31.4 dB"), (-17.83, "−17.8 dB"), (None, "–"), (math.nan, "–"),
     (math.inf, "∞ dB"), (-math.inf, "−∞ dB"), (0.0, "0.0 dB")],
)  # fmt: skip
def test_decibels(value: float | None, text: str) -> None:
    assert numerals.decibels(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (5_912_040, "5.91 MB"),
     (999_600_000, "1.00 GB"), (23_800_000_000, "23.8 GB"), (3e12, "3.00 TB"), (None, "–")],
)  # fmt: skip
def test_size(value: float | None, text: str) -> None:
    assert numerals.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01239, "0.0124"), (12.0, "12.0"), (980.6, "981"), (-3.14159, "−3.14"),
     (123456.0, "123456"), (1e-9, "1.00e-09"), (2.5e9, "2.50e+09"), (math.inf, "inf")],
)  # fmt: skip
def test_significant(value: float, text: str) -> None:
    assert numerals.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12.42, "12.4 ms"), (0.5, "0.500 ms"), (65_000, "65.0 s"), (None, "–")]
)
def test_milliseconds(value: float | None, text: str) -> None:
    assert numerals.milliseconds(value) == text


def test_percent_and_ratio() -> None:
    assert numerals.percent(0.9871) == "98.7 %"
    assert numerals.percent(None) == "–"
    assert numerals.ratio(1.494) == "1.49×"
    assert numerals.ratio(None) == "–"
