"""Session fixtures: tiny denoisers, their exports, and one compiled run."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest

from tests.shared import LazyFolders, once, run_folder
from tests.tiny_pipelines import TINY_KINDS, TinyKind, make_tiny_denoiser, tiny_denoiser


@pytest.fixture(scope="session")
def tiny_denoisers(tmp_path_factory: pytest.TempPathFactory) -> LazyFolders:
    """Folder of a tiny denoiser (random weights, float16) by kind."""
    return LazyFolders(
        run_folder(tmp_path_factory) / "denoisers",
        {kind: functools.partial(_save, kind) for kind in TINY_KINDS},
    )


@pytest.fixture(scope="session")
def exported_tiny(
    tmp_path_factory: pytest.TempPathFactory, tiny_denoisers: LazyFolders
) -> LazyFolders:
    """Run folder with the export of a tiny denoiser by kind."""

    def export_kind(kind: str, folder: Path) -> None:
        from segquant_trt.pipeline import run_stage
        from segquant_trt.records.options import CompileOptions

        run_stage("export", CompileOptions(out=folder, model=str(tiny_denoisers[kind])))

    return LazyFolders(
        run_folder(tmp_path_factory) / "exports",
        {kind: functools.partial(export_kind, kind) for kind in TINY_KINDS},
    )


@pytest.fixture(scope="session")
def tiny_linears() -> dict[str, dict[str, tuple[int, int]]]:
    """(inputs, outputs) of every Linear and convolution by torch module name, by kind."""
    from torch import nn

    return {
        kind: {
            name: (
                (module.in_features, module.out_features)
                if isinstance(module, nn.Linear)
                else (module.in_channels, module.out_channels)
            )
            for name, module in tiny_denoiser(kind).named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d))
        }
        for kind in TINY_KINDS
    }


@pytest.fixture(scope="session")
def compiled_flux(
    tmp_path_factory: pytest.TempPathFactory, tiny_denoisers: LazyFolders, flux_inputs: Path
) -> Path:
    """A finished run of the tiny FLUX denoiser; read only, copy it to change it."""

    def compile_it(folder: Path) -> None:
        from segquant_trt.pipeline import compile

        compile(str(tiny_denoisers["flux"]), out=folder, inputs=flux_inputs)

    return once(run_folder(tmp_path_factory) / "compiled-flux", compile_it)


@pytest.fixture(scope="session")
def flux_inputs(tmp_path_factory: pytest.TempPathFactory, tiny_denoisers: LazyFolders) -> Path:
    """Recorded inputs of the tiny FLUX denoiser: 16 samples of 12 tokens at eight timesteps."""

    def record(path: Path) -> None:
        import json

        import numpy as np
        from safetensors.numpy import save_file

        from segquant_trt.models import family_for

        config = json.loads((tiny_denoisers["flux"] / "config.json").read_text())
        family = family_for("FluxTransformer2DModel")
        lengths = {"batch": 16, "tokens": 12, "text": 7}
        inputs = family.example_inputs(config, lengths)
        inputs["timestep"] = np.repeat(np.linspace(1, 0.1, 8, dtype=np.float32), 2)
        save_file(inputs, path)

    return once(run_folder(tmp_path_factory) / "flux-inputs.safetensors", record)


@pytest.fixture
def flux_copy(compiled_flux: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may damage."""
    return Path(shutil.copytree(compiled_flux, tmp_path / "run"))


def _save(kind: TinyKind, folder: Path) -> None:
    make_tiny_denoiser(kind, folder, dtype="float16")
