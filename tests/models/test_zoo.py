"""The shipped models: layout, the sampling loop against closed forms, and what they draw."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from segquant_trt.errors import SegQuantError
from segquant_trt.models.zoo import (
    ZOO,
    ZooLoop,
    frechet_reference,
    load_classifier,
    torch_denoise,
    zoo_path,
)
from segquant_trt.models.zoo_loop import pack, unpack

BASES = ("digits-unet", "digits-mmdit", "digits-flux")
FLOW = ("digits-mmdit", "digits-flux")


def latents_in(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    return inputs["sample"] if "sample" in inputs else inputs["hidden_states"]


def noise_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()


def test_zoo_has_three_models_and_their_twins() -> None:
    assert set(ZOO) == {*BASES, *(f"{name}-outliers" for name in BASES)}


@pytest.mark.parametrize("name", BASES)
def test_shipped_folder_is_complete_small_and_half_precision(name: str) -> None:
    folder = zoo_path(name)
    index = json.loads((folder / "model_index.json").read_text())
    component = next(key for key in ("unet", "transformer") if key in index)
    config = json.loads((folder / component / "config.json").read_text())
    assert config["_class_name"] == index[component][1]
    weights = load_file(folder / component / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float16)}
    assert sum(value.size for value in weights.values()) <= 3_000_000
    assert all(np.isfinite(value).all() for value in weights.values())
    assert load_file(folder / "conditioning.safetensors")["tokens"].shape[0] == 11


def test_unknown_name_lists_the_models() -> None:
    with pytest.raises(SegQuantError, match=r"digits-vae.*digits-flux-outliers"):
        zoo_path("digits-vae")


@pytest.mark.parametrize("name", FLOW)
def test_rectified_flow_of_a_constant_velocity_is_noise_minus_guided_velocity(name: str) -> None:
    """Sigma runs from 1 to 0, so whatever its steps are the Euler sum is exactly the velocity."""
    loop = ZooLoop(zoo_path(name))
    unconditional, conditional, guidance = 0.25, 0.75, 3.5

    def denoise(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        x = latents_in(inputs)
        out = np.full(x.shape, unconditional, dtype=np.float32)
        out[len(x) // 2 :] = conditional
        return out

    drawn = loop.sample(denoise, seeds=[5, 6], steps=7, guidance_scale=guidance)
    velocity = unconditional + guidance * (conditional - unconditional)
    expected = np.stack([noise_of(seed, (4, 8, 8)) for seed in (5, 6)]) - velocity
    np.testing.assert_allclose(drawn.latents, expected, atol=2e-5)


def test_ddim_finds_the_picture_that_a_perfect_noise_prediction_hides() -> None:
    loop = ZooLoop(zoo_path("digits-unet"))
    picture = np.where(np.arange(256).reshape(1, 16, 16) % 7 < 3, 0.9, -0.9).astype(np.float32)
    kept = np.cumprod(1.0 - np.linspace(0.00085**0.5, 0.02**0.5, 1000) ** 2)

    def denoise(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        alpha = kept[inputs["timestep"].astype(int)][:, None, None, None]
        return ((inputs["sample"] - alpha**0.5 * picture) / (1 - alpha) ** 0.5).astype(np.float32)

    drawn = loop.sample(denoise, seeds=[1], steps=20)
    noise = noise_of(1, (1, 16, 16))
    expected = kept[0] ** 0.5 * picture + (1 - kept[0]) ** 0.5 * noise
    np.testing.assert_allclose(drawn.latents[0], expected, atol=0.02)
    np.testing.assert_allclose(drawn.images, np.clip((drawn.latents[:, 0] + 1) / 2, 0, 1))


@pytest.mark.parametrize("name", BASES)
def test_a_seed_draws_the_same_alone_and_in_company(name: str) -> None:
    loop = ZooLoop(zoo_path(name))

    def denoise(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        prompt = inputs["encoder_hidden_states"].sum(axis=(1, 2))
        x = latents_in(inputs)
        return (0.5 * x + 0.01 * prompt.reshape(-1, *[1] * (x.ndim - 1))).astype(np.float32)

    together = loop.sample(denoise, seeds=[11, 42, 7], steps=3, batch_size=2)
    alone = loop.sample(denoise, seeds=[42], steps=3)
    assert together.labels == (1, 2, 7)
    assert [loop.condition(seed) for seed in (11, 42, 7)] == ["1", "2", "7"]
    np.testing.assert_array_equal(together.latents[1], alone.latents[0])
    other = loop.sample(denoise, seeds=[42], labels=[9], steps=3)
    assert not np.array_equal(other.latents, alone.latents)


@pytest.mark.parametrize("name", BASES)
def test_calls_have_the_unconditional_half_first(name: str) -> None:
    folder = zoo_path(name)
    table = load_file(folder / "conditioning.safetensors")
    calls: list[dict[str, np.ndarray]] = []
    progress: list[tuple[int, int]] = []

    def denoise(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        calls.append({key: np.array(value) for key, value in inputs.items()})
        return np.zeros_like(latents_in(inputs))

    ZooLoop(folder).sample(
        denoise,
        seeds=[3, 14, 5],
        steps=4,
        batch_size=2,
        on_step=lambda done, total: progress.append((done, total)),
    )
    assert [len(call["timestep"]) for call in calls] == [4] * 4 + [2] * 4
    assert progress == [(i + 1, 8) for i in range(8)]
    np.testing.assert_array_equal(
        calls[0]["encoder_hidden_states"], table["tokens"][[10, 10, 3, 4]]
    )
    np.testing.assert_array_equal(*np.split(latents_in(calls[0]), 2))
    assert {value.dtype for value in calls[0].values()} == {np.dtype(np.float32)}
    highest = calls[0]["timestep"].max()
    assert (0.9 < highest <= 1.0) if name == "digits-flux" else (700 < highest <= 1000)
    if name == "digits-flux":
        assert calls[0]["img_ids"].shape == (16, 3)
        assert calls[0]["txt_ids"].shape == (table["tokens"].shape[1], 3)


def test_packing_is_pixel_unshuffling() -> None:
    latents = np.random.default_rng(0).standard_normal((3, 4, 6, 8)).astype(np.float32)
    cells = torch.nn.functional.pixel_unshuffle(torch.from_numpy(latents), 2)
    np.testing.assert_array_equal(pack(latents), cells.flatten(2).transpose(1, 2).numpy())
    np.testing.assert_array_equal(unpack(pack(latents), (4, 6, 8)), latents)


@pytest.mark.parametrize("name", FLOW)
def test_latents_decode_by_pixel_shuffling(name: str) -> None:
    drawn = ZooLoop(zoo_path(name)).sample(
        lambda inputs: 0.5 * latents_in(inputs), seeds=range(3), steps=2
    )
    pixels = torch.nn.functional.pixel_shuffle(torch.from_numpy(drawn.latents), 2)[:, 0]
    np.testing.assert_allclose(drawn.images, (pixels.numpy() / 2 + 0.5).clip(0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"seeds": []}, "0 seeds"),
        ({"seeds": [1, 2], "labels": [3]}, "2 seeds and 1 labels"),
        ({"seeds": [1], "labels": [10]}, "label 10"),
        ({"seeds": [1], "steps": 0}, "steps 0"),
        ({"seeds": [1], "steps": 1}, r"shape \(2, 3\), expected \(2, 4, 8, 8\)"),
    ],
)
def test_bad_requests_are_named(request_: dict[str, object], message: str) -> None:
    loop = ZooLoop(zoo_path("digits-mmdit"))
    with pytest.raises(SegQuantError, match=message):
        loop.sample(lambda inputs: np.zeros((2, 3), dtype=np.float32), **request_)


def test_a_folder_without_index_or_conditioning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SegQuantError, match="not a complete zoo model"):
        ZooLoop(tmp_path)
    index = (zoo_path("digits-flux") / "model_index.json").read_bytes()
    (tmp_path / "model_index.json").write_bytes(index)
    with pytest.raises(SegQuantError, match="not a complete zoo model"):
        ZooLoop(tmp_path)


@pytest.mark.parametrize("name", BASES)
def test_half_precision_compute_is_close_to_single(name: str) -> None:
    folder = zoo_path(name)
    loop = ZooLoop(folder)
    latents = np.stack([noise_of(seed, loop.latent_shape) for seed in range(4)])
    inputs = loop.inputs(latents, 601.0, [0, 3, 6, 9])
    single = torch_denoise(folder)(inputs).astype(np.float64)
    half = torch_denoise(folder, "float16")(inputs)
    assert half.dtype == np.float32
    noise_db = 10 * np.log10(np.square(single).sum() / np.square(single - half).sum())
    assert 35 < noise_db < 90


def _digits() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks/zoo/data.py"
    spec = importlib.util.spec_from_file_location("zoo_data_split", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses looks its module up while the class is being made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_classifier_recognises_held_out_digits() -> None:
    _, held_out = _digits().load_split()
    labels, features = load_classifier().predict(held_out.images.numpy()[:, 0])
    assert np.mean(labels == held_out.labels.numpy()) >= 0.98
    mean, covariance = frechet_reference()
    assert features.shape == (len(held_out.labels), len(mean))
    assert covariance.shape == (len(mean), len(mean))
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    with pytest.raises(SegQuantError, match="expected"):
        load_classifier().predict(np.zeros((1, 8, 8), dtype=np.float32))


@pytest.mark.parametrize("name", BASES)
def test_generated_digits_are_recognised(name: str) -> None:
    folder = zoo_path(name)
    drawn = ZooLoop(folder).sample(torch_denoise(folder), seeds=range(10), steps=10)
    labels, _ = load_classifier().predict(drawn.images)
    assert np.sum(labels == np.array(drawn.labels)) >= 8


@pytest.mark.full
@pytest.mark.parametrize("name", BASES)
def test_acceptance_on_200_digits(name: str) -> None:
    folder = zoo_path(name)
    drawn = ZooLoop(folder).sample(torch_denoise(folder), seeds=range(200))
    labels, _ = load_classifier().predict(drawn.images)
    right = labels == np.array(drawn.labels)
    assert right.mean() >= 0.95
    assert min(right[digit::10].mean() for digit in range(10)) >= 0.85
    training, held_out = _digits().load_split()
    known = training.images.numpy().reshape(len(training.labels), -1)

    def median_distance(images: np.ndarray) -> float:
        flat = images.reshape(len(images), 1, -1)
        return float(np.median([np.linalg.norm(known - row, axis=1).min() for row in flat]))

    assert median_distance(drawn.images) >= 0.7 * median_distance(held_out.images.numpy())
