"""Families against what diffusers' own `forward` accepts."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from segquant_trt.errors import SegQuantError
from segquant_trt.models import FAMILIES, family_for
from segquant_trt.models.family import Family
from tests.tiny_pipelines import TINY_KINDS, TinyKind, tiny_denoiser

VARIANTS: list[tuple[TinyKind, dict[str, Any]]] = [
    *((kind, {}) for kind in TINY_KINDS),
    ("flux", {"guidance_embeds": False}),
    ("flux", {"out_channels": 8}),
    ("sd3", {"dual_attention_layers": (), "qk_norm": None}),
    ("sd15", {"time_cond_proj_dim": 6}),
    ("sd15", {"num_class_embeds": 5}),
    ("sd15", {"class_embed_type": "timestep"}),
    ("sd15", {"class_embed_type": "identity"}),
    ("sd15", {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 12}),
    ("sd15", {"encoder_hid_dim": 24, "encoder_hid_dim_type": "text_proj"}),
    ("sdxl", {"projection_class_embeddings_input_dim": 5 * 8 + 64}),  # SDXL's refiner
]


def _called(family: Family, model: Any, config: Any, lengths: dict[str, int]) -> Any:
    flat = family.example_inputs(config, lengths, seed=3)
    for spec in family.inputs(config):
        assert flat[spec.name].dtype == np.dtype(spec.dtype)
        assert flat[spec.name].flags.c_contiguous
    tensors = {name: torch.from_numpy(array) for name, array in flat.items()}
    with torch.no_grad():
        return model(**family.nest(tensors), return_dict=False)[0]


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_forward_accepts_the_example(kind: TinyKind, changes: dict[str, Any]) -> None:
    model = tiny_denoiser(kind, **changes)
    family = family_for(type(model).__name__)
    lengths = {"batch": 3, "height": 12, "width": 8, "tokens": 15, "text": 5}
    output = _called(family, model, model.config, lengths)
    spec = family.output(model.config)
    expected = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in spec.shape)
    assert tuple(output.shape) == expected


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_the_shortest_lengths_work(kind: TinyKind) -> None:
    model = tiny_denoiser(kind)
    family = family_for(type(model).__name__)
    lengths = {axis.name: axis.minimum for axis in family.sizes(model.config)}
    assert torch.isfinite(_called(family, model, model.config, lengths)).all()


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_typical_lengths_are_allowed(kind: TinyKind) -> None:
    model = tiny_denoiser(kind)
    for axis in family_for(type(model).__name__).sizes(model.config):
        assert axis.minimum <= axis.typical <= axis.maximum
        assert axis.typical % axis.multiple == axis.minimum % axis.multiple == 0


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_the_cut_is_small_and_of_the_same_architecture(
    kind: TinyKind, changes: dict[str, Any]
) -> None:
    model = tiny_denoiser(kind, **changes)
    family = family_for(type(model).__name__)
    cut = family.module_class().from_config(family.cut(model.config)).eval()
    lengths = {"batch": 2, "height": 8, "width": 8, "tokens": 6, "text": 5}
    assert torch.isfinite(_called(family, cut, cut.config, lengths)).all()
    kinds = {type(module).__name__ for module in model.modules()}
    assert {type(module).__name__ for module in cut.modules()} == kinds


def test_the_cut_of_a_large_model_is_small() -> None:
    from tests.sparse_checkpoint import FLUX_DEV

    cut = family_for("FluxTransformer2DModel").cut(FLUX_DEV)
    assert (cut["num_layers"], cut["num_single_layers"], cut["num_attention_heads"]) == (2, 2, 2)


def test_sdxl_sizes_of_the_published_models() -> None:
    base = {
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    refiner = base | {"cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560}
    unet = family_for("UNet2DConditionModel")
    configs = [unet.complete(config) for config in (base, refiner)]
    shapes = [{spec.name: spec.shape[-1] for spec in unet.inputs(config)} for config in configs]
    assert [s["added_cond_kwargs.text_embeds"] for s in shapes] == [1280, 1280]
    assert [s["added_cond_kwargs.time_ids"] for s in shapes] == [6, 5]


def test_examples_are_seeded() -> None:
    family = family_for("FluxTransformer2DModel")
    config = tiny_denoiser("flux").config
    lengths = {"batch": 2, "tokens": 12, "text": 5}
    one, same, other = (family.example_inputs(config, lengths, seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["hidden_states"], other["hidden_states"])
    assert 0 <= one["timestep"].min() < one["timestep"].max() <= 1
    # A 3 x 4 grid, row by row.
    assert one["img_ids"].tolist() == [[0, n // 4, n % 4] for n in range(12)]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_defaults_are_those_of_the_constructor(family: Family) -> None:
    signature = inspect.signature(family.module_class().__init__).parameters
    for name, default in family.defaults.items():
        expected = signature[name].default
        assert default == (list(expected) if isinstance(expected, tuple) else expected)
    bare = family.complete({})
    assert family.inputs(bare)
    assert family.output(bare)
    assert family.sizes(bare)
    assert family.cut(bare)


def test_dotted_names_become_nested_dicts() -> None:
    nested = FAMILIES[0].nest({"sample": 1, "added_cond_kwargs.a": 2, "added_cond_kwargs.b": 3})
    assert nested == {"sample": 1, "added_cond_kwargs": {"a": 2, "b": 3}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("addition_embed_type", "image"),
        ("encoder_hid_dim_type", "image_proj"),
        ("class_embed_type", "dream"),
    ],
)
def test_unknown_conditions_are_named(key: str, value: str) -> None:
    config = dict(tiny_denoiser("sd15").config) | {key: value}
    with pytest.raises(SegQuantError, match=f"{key} = '{value}'"):
        family_for("UNet2DConditionModel").inputs(config)


def test_an_unknown_class() -> None:
    with pytest.raises(SegQuantError, match="Dreamer"):
        family_for("Dreamer")
