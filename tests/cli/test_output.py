"""Answers on stdout."""

from __future__ import annotations

import json

import pytest

from segquant_trt.cli.output import answer


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    answer({"a": 1.5, "b": None, "c": ["x\ny"]}, as_json=True)
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == {"a": 1.5, "b": None, "c": ["x\ny"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_figures_that_are_not_numbers(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        answer({"a": value}, as_json=True)


def test_text_of_every_kind_of_value(capsys: pytest.CaptureFixture[str]) -> None:
    answer(
        {
            "none": None,
            "empty": [],
            "yes": True,
            "float": 0.123456,
            "list": [1, None],
            "map": {"batch": 2},
        },
        as_json=False,
    )
    assert capsys.readouterr().out == "yes    yes\nfloat  0.1235\nlist   1, -\nmap    batch=2\n"


def test_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    answer({}, as_json=False)
    assert capsys.readouterr().out == ""
