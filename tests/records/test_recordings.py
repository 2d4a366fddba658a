"""Shards of denoiser inputs: batching by timestep, widening, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.records import AxisRange, ModelSpec, TensorSpec
from segquant_trt.records.recordings import batch_of, open_recordings, write_shard


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec(
        source="test",
        family="flux",
        class_name="FluxTransformer2DModel",
        config={},
        inputs=(
            TensorSpec(name="x", dtype="float32", shape=("batch", "tokens", 3)),
            TensorSpec(name="timestep", dtype="float32", shape=("batch",)),
            TensorSpec(name="ids", dtype="float32", shape=("tokens", 2)),
        ),
        output=TensorSpec(name="sample", dtype="float32", shape=("batch", "tokens", 3)),
        axes=(
            AxisRange(name="batch", minimum=1, typical=2, maximum=4),
            AxisRange(name="tokens", minimum=2, typical=4, maximum=8, multiple=2),
        ),
        timestep="timestep",
        prompt_inputs=(),
        opset=21,
        onnx_sha256="",
        checkpoint=(),
        validation=None,
        exporter={},
    )


def inputs(steps: list[float], tokens: int = 4) -> dict[str, np.ndarray]:
    count = len(steps)
    return {
        "x": np.arange(count * tokens * 3, dtype=np.float32).reshape(count, tokens, 3),
        "timestep": np.array(steps, dtype=np.float32),
        "ids": np.ones((tokens, 2), dtype=np.float32),
    }


def test_batches_hold_one_timestep_each_and_lose_nothing(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "shard-0.safetensors", inputs([9.0, 5.0, 9.0, 9.0]))
    write_shard(tmp_path / "shard-1.safetensors", inputs([1.0]))
    recordings = open_recordings(tmp_path, spec)
    batches = list(recordings.batches(2))
    assert recordings.timesteps() == [9.0, 5.0, 9.0, 9.0, 1.0]
    assert [batch["timestep"].tolist() for batch in batches] == [[9, 9], [9], [5], [1]]
    assert [batch_of(recordings, batch) for batch in batches] == [2, 1, 1, 1]
    first = [batch["x"][:, 0, 0].tolist() for batch in batches]
    assert first == [[0.0, 24.0], [36.0], [12.0], [0.0]]
    assert all(batch["ids"].shape == (4, 2) for batch in batches)


def test_half_precision_recordings_are_widened(tmp_path: Path, spec: ModelSpec) -> None:
    stored = inputs([1.0, 2.0])
    stored["x"] = stored["x"].astype(np.float16)
    stored["timestep"] = stored["timestep"].astype(np.int64)
    save_file(stored, tmp_path / "one.safetensors")
    (batch, _) = open_recordings(tmp_path / "one.safetensors", spec).batches(8)
    assert {array.dtype for array in batch.values()} == {np.dtype(np.float32)}


def test_timesteps_are_those_that_the_batches_have(tmp_path: Path, spec: ModelSpec) -> None:
    stored = inputs([0.7, 0.3])
    stored["timestep"] = np.array([0.7, 0.3], dtype=np.float64)
    save_file(stored, tmp_path / "one.safetensors")
    recordings = open_recordings(tmp_path / "one.safetensors", spec)
    given = [float(batch["timestep"][0]) for batch in recordings.batches(1)]
    assert recordings.timesteps() == given == [float(np.float32(0.7)), float(np.float32(0.3))]


def test_more_samples_than_one_call_takes_are_recordings(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([1.0] * 5))
    recordings = open_recordings(tmp_path, spec)
    assert [batch_of(recordings, batch) for batch in recordings.batches(4)] == [4, 1]


def test_a_shard_without_samples_is_refused(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([]))
    with pytest.raises(SegQuantError, match="holds no samples"):
        open_recordings(tmp_path, spec)


@pytest.mark.parametrize("tokens", [0, 3, 10])
def test_sizes_that_the_model_does_not_take_are_refused(
    tmp_path: Path, spec: ModelSpec, tokens: int
) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([1.0], tokens))
    with pytest.raises(SegQuantError) as refused:
        open_recordings(tmp_path, spec)
    assert f"has tokens {tokens}; allowed: 2 to 8 in multiples of 2" in refused.value.what
    assert refused.value.what.startswith("'x' in ")


def test_arguments_of_different_sizes_are_refused(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([1.0]) | {"ids": np.ones((6, 2), np.float32)})
    with pytest.raises(SegQuantError, match="has tokens 6, but 'x' has tokens 4"):
        open_recordings(tmp_path, spec)


def test_values_beyond_the_models_type_are_refused(tmp_path: Path, spec: ModelSpec) -> None:
    write_shard(tmp_path / "one.safetensors", inputs([1.0]) | {"timestep": np.array([1e300])})
    with pytest.raises(SegQuantError, match=r"'timestep' in .* infinity as float32"):
        open_recordings(tmp_path, spec)


def test_an_empty_folder_says_which_arguments_are_wanted(tmp_path: Path, spec: ModelSpec) -> None:
    with pytest.raises(SegQuantError) as refused:
        open_recordings(tmp_path, spec)
    assert "x, timestep, ids" in refused.value.hint


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    first = inputs([1.0])
    write_shard(tmp_path / "a.safetensors", first)
    write_shard(tmp_path / "b.safetensors", dict(reversed(first.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
