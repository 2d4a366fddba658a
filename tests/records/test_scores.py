"""`scores.safetensors`: a round trip, equal bytes, arrays by key, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.records import Smoothing, Treatment
from segquant_trt.records.scores import (
    Scores,
    array_key,
    read_arrays,
    read_scores,
    treatment_keys,
    write_scores,
)
from tests.plan.made_up import (
    OPTIMISED,
    option,
    score,
    scores_of,
    site,
    treatment,
)

ARRAYS = {
    "d-1": np.array([1.0, 0.1, 3e-8], dtype=np.float32),
    "w-2.codes": np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
    "w-2.scale": np.float32([0.5, 0.25, 0.125]),
    "o-a": np.zeros((2, 3), dtype=np.float32),
}


def example() -> Scores:
    a, b = site("a", activation="x"), site("b", activation="x")
    options = (
        option(treatment("symmetric", smooth=True), 1.23456789e-7, 31.25),
        option(treatment("shifted", "dual_full", factor="per_step", weight=OPTIMISED), 0.0, None),
        option(treatment("float"), 1e-12),
    )
    return scores_of(score(a, *options), score(b, *options, amplification="uniform"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_scores(tmp_path / "scores.safetensors", example(), ARRAYS)
    return tmp_path / "scores.safetensors"


def test_scores_survive_a_round_trip(path: Path) -> None:
    assert read_scores(path) == example()
    found = read_arrays(path, ARRAYS)
    assert list(found) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_equal_content_gives_equal_bytes(path: Path) -> None:
    again = path.with_name("again")
    write_scores(again, read_scores(path), dict(reversed(read_arrays(path, ARRAYS).items())))
    assert again.read_bytes() == path.read_bytes()


def test_arrays_are_read_by_key_once(path: Path) -> None:
    assert list(read_arrays(path, ["o-a", "d-1", "o-a"])) == ["d-1", "o-a"]
    assert read_arrays(path.with_name("nowhere"), []) == {}, "no file is needed for no array"


def test_an_array_that_is_missing_is_named(path: Path) -> None:
    with pytest.raises(SegQuantError, match=r"names the array 'w-9\.codes'") as refused:
        read_arrays(path, ["d-1", "w-9.codes"])
    assert "segquant-trt score" in refused.value.hint


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_files_are_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    for read in (read_scores, lambda where: read_arrays(where, ["d-1"])):
        with pytest.raises(SegQuantError, match="missing, truncated or altered"):
            read(path)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    for read in (read_scores, lambda where: read_arrays(where, ["d-1"])):
        with pytest.raises(SegQuantError, match="not a readable scores file"):
            read(tmp_path / "scores.safetensors")


def header_of(path: Path) -> dict:
    with safe_open(str(path), framework="numpy") as file:
        return json.loads(file.metadata()["scores"])


def with_header(path: Path, text: str) -> None:
    save_file(load_file(path), path, metadata={"scores": text})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "has schema_version 99; this program reads 1"),
        ({"sites": 3}, "not a valid Scores"),
        ({"bin_edges": ["low"]}, "expected float @ $.bin_edges[0]"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_altered_headers_are_refused(path: Path, change, message: str) -> None:
    with_header(path, json.dumps(header_of(path) | change))
    with pytest.raises(SegQuantError) as refused:
        read_scores(path)
    assert str(path) in refused.value.what
    assert message in refused.value.what
    assert "segquant-trt score" in refused.value.hint or "stage that writes" in refused.value.hint


def test_an_option_of_an_unknown_scheme_is_refused(path: Path) -> None:
    header = header_of(path)
    header["sites"][0]["options"][0]["treatment"]["segments"][0]["activation"]["kind"] = "int3"
    with_header(path, json.dumps(header))
    with pytest.raises(SegQuantError, match="scheme 'int3' is unknown; allowed: symmetric"):
        read_scores(path)


@pytest.mark.parametrize("text", ["[]", "7", "{", '{"a": 1}'])
def test_headers_of_another_form_are_refused(path: Path, text: str) -> None:
    with_header(path, text)
    with pytest.raises(SegQuantError, match="not a readable scores file"):
        read_scores(path)


def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "weights.safetensors")
    with pytest.raises(SegQuantError, match="not a readable scores file"):
        read_scores(tmp_path / "weights.safetensors")


def test_keys_tell_contents_apart() -> None:
    one = np.arange(6, dtype=np.float32)
    keys = [
        array_key("d", one),
        array_key("d", one.astype(np.float64)),
        array_key("d", one.reshape(2, 3)),
        array_key("d", one + 1),
        array_key("w", one),
        array_key("w", one, one),
    ]
    assert len(set(keys)) == len(keys)
    assert array_key("d", one.copy()) == keys[0]
    assert keys[0].startswith("d-")
    assert len(keys[0]) == 2 + 16


def test_treatments_name_their_arrays() -> None:
    assert treatment_keys(treatment("symmetric")) == ()
    assert treatment_keys(treatment("symmetric", smooth=True, weight=OPTIMISED)) == (
        "d-1", "w-2.codes", "w-2.scale",
    )  # fmt: skip
    smoothing = Smoothing(divisor="d-7", alpha=None, segment_exponent=1.0)
    bare = Treatment(segments=treatment("float").segments, smoothing=smoothing)
    assert treatment_keys(bare) == ("d-7",)
