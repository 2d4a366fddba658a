"""Everything that a user may name as a model, and everything that is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.models.checkpoint import read_tensors
from segquant_trt.models.source import resolve
from tests.shared import LazyFolders
from tests.tiny_pipelines import make_tiny_denoiser

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = {"_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.42.1", "num_layers": 1}


@pytest.fixture
def denoiser(tmp_path: Path) -> Path:
    """A folder that looks like a FLUX denoiser; nothing reads its weights here."""
    return _denoiser(tmp_path / "transformer")


def _denoiser(folder: Path, name: str = WEIGHTS, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    save_file({"x": np.zeros(3, np.float32)}, folder / name)
    return folder


def _refused(model: Path | str) -> SegQuantError:
    with pytest.raises(SegQuantError) as caught:
        resolve(str(model))
    assert caught.value.hint
    return caught.value


def test_a_denoiser_folder(denoiser: Path) -> None:
    source = resolve(str(denoiser))
    assert (source.kind, source.name, source.pipeline_folder) == ("denoiser", "transformer", None)
    assert source.config["num_layers"] == 1
    assert source.config["axes_dims_rope"] == [16, 56, 56]  # FLUX.1's own file leaves it out
    assert not any(key.startswith("_") for key in source.config)
    assert source.checkpoint == (denoiser.resolve() / WEIGHTS,)


@pytest.mark.parametrize("component", ["unet", "transformer"])
def test_a_pipeline_folder(tmp_path: Path, component: str) -> None:
    folder = _denoiser(tmp_path / "pipe" / component)
    index = {"_class_name": "SomePipeline", component: ["diffusers", "FluxTransformer2DModel"]}
    (tmp_path / "pipe" / "model_index.json").write_text(json.dumps(index))
    source = resolve(str(tmp_path / "pipe"))
    assert (source.kind, source.name) == ("pipeline", "pipe")
    assert (source.pipeline_folder, source.denoiser_folder) == (tmp_path / "pipe", folder)


def test_another_denoiser_by_subfolder(tmp_path: Path) -> None:
    for component in ("transformer", "transformer_2"):
        _denoiser(tmp_path / component, num_layers=len(component))
    (tmp_path / "model_index.json").write_text(json.dumps({"transformer": ["diffusers", "X"]}))
    source = resolve(str(tmp_path), subfolder="transformer_2")
    assert source.config["num_layers"] == len("transformer_2")


def test_a_zoo_model() -> None:
    source = resolve("zoo:digits-flux")
    assert (source.kind, source.name) == ("zoo", "zoo:digits-flux")
    assert source.class_name == "FluxTransformer2DModel"


def test_links_of_a_hub_cache_are_resolved(tmp_path: Path) -> None:
    snapshot = _denoiser(tmp_path / "snapshots" / "1")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (snapshot / WEIGHTS).rename(blobs / "5f3c")
    (snapshot / WEIGHTS).symlink_to(os.path.relpath(blobs / "5f3c", snapshot))
    assert resolve(str(snapshot)).checkpoint == ((blobs / "5f3c").resolve(),)


def test_a_hub_id_from_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    snapshot = tmp_path / "models--someone--flux" / "snapshots" / "abc"
    _denoiser(snapshot)
    refs = tmp_path / "models--someone--flux" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = resolve("someone/flux")
    assert source.name == "someone/flux"
    assert source.denoiser_folder == snapshot


def test_a_hub_id_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "someone/nothing" in _refused("someone/nothing").what


def test_shards_and_their_index(tmp_path: Path) -> None:
    folder = make_tiny_denoiser("sd3", tmp_path / "sd3", max_shard_size="100KB")
    source = resolve(str(folder))
    assert len(source.checkpoint) > 1
    tensors = read_tensors(source.checkpoint)
    whole = {name: array for file in source.checkpoint for name, array in load_file(file).items()}
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: array.shape for name, array in whole.items()
    }
    source.checkpoint[1].unlink()
    assert source.checkpoint[1].name in _refused(folder).what


def test_a_plain_file_wins_over_a_variant(denoiser: Path) -> None:
    variant = "diffusion_pytorch_model.fp16.safetensors"
    _denoiser(denoiser, variant)
    assert resolve(str(denoiser)).checkpoint[0].name == WEIGHTS
    (denoiser / WEIGHTS).unlink()
    assert resolve(str(denoiser)).checkpoint[0].name == variant


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert str(tmp_path / "gone") in _refused(tmp_path / "gone").what


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "empty" in _refused(tmp_path).what


def test_a_single_file_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, path)
    assert "from_single_file" in _refused(path).hint


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("hello")
    assert "config.json" in _refused(tmp_path).what


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_configuration_that_is_none(denoiser: Path, text: str) -> None:
    (denoiser / "config.json").write_text(text)
    assert "config.json" in _refused(denoiser).what


def test_an_unknown_class_lists_the_known(denoiser: Path) -> None:
    _denoiser(denoiser, _class_name="Dreamer")
    what = _refused(denoiser).what
    assert "Dreamer" in what
    assert "UNet2DConditionModel, SD3Transformer2DModel, FluxTransformer2DModel" in what


def test_a_quantised_checkpoint(denoiser: Path) -> None:
    _denoiser(denoiser, quantization_config={"bits": 4})
    assert "already quantised" in _refused(denoiser).what


@pytest.mark.parametrize("mark", ["pytorch_lora_weights.safetensors", "adapter_config.json"])
def test_a_lora(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).write_text("{}")
    error = _refused(tmp_path)
    assert "LoRA" in error.what
    assert "fuse_lora" in error.hint


def test_pickled_weights(denoiser: Path) -> None:
    (denoiser / WEIGHTS).rename(denoiser / "diffusion_pytorch_model.bin")
    error = _refused(denoiser)
    assert "diffusion_pytorch_model.bin" in error.what
    assert "save_pretrained" in error.hint


def test_no_weights(denoiser: Path) -> None:
    (denoiser / WEIGHTS).unlink()
    assert "no weights" in _refused(denoiser).what


def test_truncated_weights(denoiser: Path) -> None:
    path = denoiser / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    assert WEIGHTS in _refused(denoiser).what


def test_an_index_that_leads_elsewhere(denoiser: Path) -> None:
    index = {"weight_map": {"x": "../../secret.safetensors"}}
    (denoiser / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert "../../secret.safetensors" in _refused(denoiser).what


@pytest.mark.parametrize(
    "index", [{}, [], {"weight_map": {}}, {"weight_map": [1]}, {"weight_map": {"a": 1, "b": "c"}}]
)
def test_an_index_that_is_none(denoiser: Path, index: object) -> None:
    (denoiser / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert "not an index of safetensors shards" in _refused(denoiser).what


def test_a_pipeline_without_a_denoiser(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "VaePipeline"}))
    assert "without a denoiser" in _refused(tmp_path).what


def test_every_tiny_kind_resolves(tiny_denoisers: LazyFolders) -> None:
    source = resolve(str(tiny_denoisers["sdxl"]))
    assert source.class_name == "UNet2DConditionModel"
    assert source.config["addition_embed_type"] == "text_time"
