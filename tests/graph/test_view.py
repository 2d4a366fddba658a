"""What a view tells of tensors."""

from __future__ import annotations

import pytest

from segquant_trt.graph.view import GraphView
from tests.analyze.graphs import Drawing


@pytest.mark.parametrize(
    ("dims", "wanted"),
    [
        (("b",), True),
        (("b", 5), True),
        (("b", 1, 5), True),
        (("b", 6, 5), False),
        (("b", "tokens", 5), False),
        (("b", 5, 1, 1), True),
        (("b", 5, "h", "w"), False),
    ],
)
def test_one_row_per_sample(dims: tuple[int | str, ...], wanted: bool) -> None:
    d = Drawing()
    made = d.op("Relu", d.input("x", *dims))
    view = GraphView.of(d.model())
    assert view.has_one_row(made) == wanted
    assert not view.has_one_row("nobody knows it")
