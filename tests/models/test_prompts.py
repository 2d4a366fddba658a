"""Prompt files."""

from __future__ import annotations

from pathlib import Path

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.models.prompts import Prompt, read_prompts


def test_the_shipped_prompts() -> None:
    prompts = read_prompts()
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 32
    assert not any(prompt.negative for prompt in prompts)


def test_lines_and_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text('a cat\n\n  {"prompt": "a dog", "negative_prompt": "blur"}\n{"prompt": "é"}')
    assert read_prompts(path) == (
        Prompt(text="a cat"),
        Prompt(text="a dog", negative="blur"),
        Prompt(text="é"),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\n \n", "empty"),
        ('a cat\n{"prompt": 3}', "prompts.txt:2"),
        ('{"prompt": "x", "seed": 1}', "prompts.txt:1"),
        ('{"prompt": ', "not valid JSON"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(text)
    with pytest.raises(SegQuantError, match=complaint):
        read_prompts(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SegQuantError, match="none"):
        read_prompts(tmp_path / "none")
