"""Outlier twins: the same function, other statistics, the same bytes everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from segquant_trt.errors import SegQuantError
from segquant_trt.models.outliers import chosen_channels, pairs, rescalings
from segquant_trt.models.zoo import ZooLoop, torch_denoise, zoo_path

BASES = ("digits-unet", "digits-mmdit", "digits-flux")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def weights_of(folder: Path) -> Path:
    return next(folder.glob("*/diffusion_pytorch_model.safetensors"))


def example(folder: Path, time: float) -> dict[str, np.ndarray]:
    loop = ZooLoop(folder)
    latents = np.random.default_rng(3).standard_normal((5, *loop.latent_shape))
    return loop.inputs(latents.astype(np.float32), time, [0, 2, 4, 6, 8])


def linear_inputs(folder: Path) -> dict[str, torch.Tensor]:
    """Every linear's and convolution's input in one forward pass, by module name."""
    import diffusers

    loop = ZooLoop(folder)
    model = getattr(diffusers, loop.class_name).from_pretrained(folder / loop.component).eval()
    seen: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_pre_hook(
                lambda _, arguments, name=name: seen.__setitem__(name, arguments[0])
            )
    with torch.inference_mode():
        inputs = example(folder, 400.0)
        model(**{key: torch.from_numpy(value) for key, value in inputs.items()})
    return seen


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("time", [20.0, 500.0, 960.0])
def test_twin_is_the_same_function(name: str, time: float, cache: Path) -> None:
    inputs = example(zoo_path(name), time)
    reference = torch_denoise(zoo_path(name))(inputs).astype(np.float64)
    twin = torch_denoise(zoo_path(f"{name}-outliers", cache))(inputs)
    noise = np.square(reference - twin).sum()
    assert noise > 0
    assert 10 * np.log10(np.square(reference).sum() / noise) >= 90


@pytest.mark.parametrize(
    ("name", "rescaled", "paired"),
    [("digits-mmdit", 6 * 4 + 5, 6 + 5), ("digits-flux", 3 * 5 + 6 * 2, 3 * 2 + 6)],
)
def test_every_block_is_changed(name: str, rescaled: int, paired: int) -> None:
    stored = load_file(weights_of(zoo_path(name)))
    assert len(rescalings(stored)) == rescaled
    assert len(pairs(stored)) == paired


def test_every_unet_transformer_block_is_changed() -> None:
    stored = load_file(weights_of(zoo_path("digits-unet")))
    blocks = sum(name.endswith("attn2.to_q.weight") for name in stored)
    assert blocks >= 4
    assert len(rescalings(stored)) == 7 * blocks
    assert len(pairs(stored)) == blocks


@pytest.mark.parametrize("name", BASES)
def test_rescaled_sites_have_outliers_far_above_the_rms(name: str, cache: Path) -> None:
    base, twin = zoo_path(name), zoo_path(f"{name}-outliers", cache)
    changed = rescalings(load_file(weights_of(base)))
    consumers = {change.columns[0].removesuffix(".weight") for change in changed}
    before, after = linear_inputs(base), linear_inputs(twin)

    def peak(values: torch.Tensor) -> float:
        return float(values.abs().max() / values.square().mean().sqrt())

    ratios = np.array([peak(after[site]) for site in sorted(consumers)])
    plain = np.array([peak(before[site]) for site in sorted(consumers)])
    assert np.median(ratios) >= 15
    assert ratios.min() >= 8
    assert np.median(ratios / plain) >= 2


@pytest.mark.parametrize("name", BASES)
def test_twin_stores_halves_unless_they_would_round(name: str, cache: Path) -> None:
    stored = load_file(weights_of(zoo_path(f"{name}-outliers", cache)))
    types = {value.dtype for value in stored.values()}
    assert types == {np.dtype(np.float16), np.dtype(np.float32)}
    for value in stored.values():
        if value.dtype == np.float32:
            assert not np.array_equal(value.astype(np.float16).astype(np.float32), value)


def test_twin_is_made_once_and_byte_for_byte_alike(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGQUANT_TRT_CACHE", str(tmp_path))
    first = zoo_path("digits-flux-outliers")
    assert first.parent == tmp_path
    other = zoo_path("digits-flux-outliers", cache)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    assert all((first / path).read_bytes() == (other / path).read_bytes() for path in files)
    made = weights_of(first).stat().st_mtime_ns
    assert zoo_path("digits-flux-outliers") == first
    assert weights_of(first).stat().st_mtime_ns == made
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_an_unusable_cache_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(SegQuantError, match=r"file.*failed|cannot be written"):
        zoo_path("digits-unet-outliers", blocked)


def test_channels_depend_on_the_site_name_alone() -> None:
    assert chosen_channels("site", 96, 3) == chosen_channels("site", 96, 3)
    many = {tuple(chosen_channels(f"site{i}", 96, 3)) for i in range(20)}
    assert len(many) > 15
    assert all(len(set(channels)) == 3 and max(channels) < 96 for channels in many)
