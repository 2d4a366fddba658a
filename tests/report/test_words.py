"""Every word that a treatment is told in has a meaning."""

from __future__ import annotations

from typing import get_args

import pytest

from segquant_trt.records import Treatment
from segquant_trt.records.treatment import (
    ActivationScheme,
    KeepFloat,
    PerStep,
    PerToken,
    SegmentPlan,
    Shifted,
    Smoothing,
    Symmetric,
    WeightPlan,
    left_in_float,
)
from segquant_trt.report.words import MEANINGS, words_of

_SYMMETRIC = Symmetric(scale=0.1)


def _part(activation: ActivationScheme, **factor: PerToken | PerStep) -> SegmentPlan:
    return SegmentPlan(channels=8, activation=activation, **factor)


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        (left_in_float(8), "float"),
        (Treatment(segments=(_part(_SYMMETRIC),), weight=WeightPlan()), "symmetric int8"),
        (
            Treatment(
                segments=(_part(Shifted(scale=0.1, zero_shift=3), factor=PerToken()),),
                smoothing=Smoothing(divisor="d", alpha=0.5, segment_exponent=0.2),
                weight=WeightPlan(bits=4, rounding="gptq"),
            ),
            "shifted per_token rescaled smoothed int4 gptq",
        ),
        (
            Treatment(
                segments=(
                    _part(_SYMMETRIC, factor=PerStep(edges=(0.0,), factors=(1.0,))),
                    _part(_SYMMETRIC),
                ),
                weight=WeightPlan(),
            ),
            "split symmetric per_step int8",
        ),
        (
            Treatment(segments=(_part(KeepFloat()),), weight=WeightPlan(bits=4)),
            "float-input int4",
        ),
    ],
)
def test_words(treatment: Treatment, words: str) -> None:
    assert words_of(treatment) == tuple(word.replace("-", " ") for word in words.split())


def test_every_word_has_a_meaning() -> None:
    kinds = {scheme.__dataclass_fields__["kind"].default for scheme in get_args(ActivationScheme)}
    assert kinds - {"keep_float"} | {"per_token", "per_step", "int4", "int8"} <= MEANINGS.keys()
