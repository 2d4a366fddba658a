"""How many samples verify puts through a graph at once."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from segquant_trt.records import AxisRange, TensorSpec
from segquant_trt.verify.stage import _batch_size


@pytest.mark.parametrize(
    ("channels", "edge", "samples"),
    [(1, 16, 16), (4, 32, 16), (4, 64, 4), (4, 128, 1), (16, 128, 1)],
)
def test_large_predictions_go_by_ones(channels: int, edge: int, samples: int) -> None:
    axis = AxisRange(name="height", minimum=2, typical=edge, maximum=512)
    spec = SimpleNamespace(
        axes=(
            AxisRange(name="batch", minimum=1, typical=2, maximum=64),
            axis,
            replace(axis, name="width"),
        ),
        output=TensorSpec(name="y", dtype="float32", shape=("batch", channels, "height", "width")),
    )
    assert _batch_size(spec) == samples
