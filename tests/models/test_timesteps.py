"""Timesteps that a schedule gives to the denoiser: those that sampling really asks for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.models.loops import scheduled_timesteps
from segquant_trt.models.pipelines import PipelineLoop
from segquant_trt.models.zoo import zoo_path
from segquant_trt.models.zoo_loop import ZooLoop
from segquant_trt.records import CheckpointLocation, ModelSpec
from segquant_trt.records.options import CompileOptions
from tests.models.test_pipelines import SIZE, _spec
from tests.tiny_pipelines import TinyKind, make_tiny_pipeline


def listening(seen: list[float], output: tuple[int, ...] | None = None):
    def denoise(inputs):
        seen.extend(inputs["timestep"].tolist())
        return np.zeros(output or next(iter(inputs.values())).shape, dtype=np.float32)

    return denoise


@pytest.mark.parametrize("name", ["digits-unet", "digits-mmdit", "digits-flux"])
def test_the_zoo_says_what_it_asks_for(name: str) -> None:
    loop = ZooLoop(zoo_path(name))
    seen: list[float] = []
    loop.sample(listening(seen), seeds=[0], steps=7)
    steps = loop.timesteps(7)
    assert sorted({*seen}) == sorted(steps)
    assert [*dict.fromkeys(seen)] == list(steps)
    assert all(step == float(np.float32(step)) for step in steps)


def test_the_zoo_takes_other_schedulers_by_name() -> None:
    loop = ZooLoop(zoo_path("digits-unet"))
    assert len(loop.timesteps(5, scheduler="HeunDiscreteScheduler")) == 9
    with pytest.raises(SegQuantError, match=r"'Nothing' does not fit digits-unet; .*Euler"):
        loop.timesteps(5, scheduler="Nothing")


@pytest.mark.parametrize("kind", ["sd15", "sd3", "flux"])
def test_pipelines_say_what_they_ask_for(kind: TinyKind, tmp_path: Path) -> None:
    """FLUX shifts its steps by the image's size."""
    folder = make_tiny_pipeline(kind, tmp_path / kind)
    found = {}
    for size in (SIZE, 2 * SIZE):
        loop = PipelineLoop(folder, _spec(folder), height=size, width=size)
        found[size] = loop.timesteps(3)
        seen: list[float] = []
        loop.sample(listening(seen), seeds=[3], steps=3)
        assert [*dict.fromkeys(seen)] == [*dict.fromkeys(found[size])]
    assert len({*found[SIZE]}) == 3
    assert (found[SIZE] != found[2 * SIZE]) == (kind == "flux")
    if kind == "sd15":
        assert len(loop.timesteps(3, scheduler="HeunDiscreteScheduler")) > len(found[SIZE])


def schedule(
    text: str, *, spec: ModelSpec | SimpleNamespace, folder: Path | None
) -> tuple[float, ...]:
    options = CompileOptions(out=Path("run"), freeze_schedule=text)
    location = CheckpointLocation(
        folder="", pipeline_folder=None if folder is None else str(folder), mtime_ns={}, inode={}
    )
    return scheduled_timesteps(spec, location, options)


def test_several_schedules_are_one_table() -> None:
    folder = zoo_path("digits-unet")
    spec = SimpleNamespace(source="zoo:digits-unet", timestep="timestep")
    both = schedule("default:4, DDIMScheduler:10", spec=spec, folder=folder)
    apart = [schedule(f"default:{steps}", spec=spec, folder=folder) for steps in (4, 10)]
    assert both == tuple(sorted({*apart[0], *apart[1]}))
    assert len(both) > len(apart[1])
    with pytest.raises(SegQuantError, match="has one size"):
        schedule("default:4:32x32", spec=spec, folder=folder)


def test_a_denoiser_alone_has_no_schedule() -> None:
    spec = SimpleNamespace(source="transformer", timestep="timestep")
    with pytest.raises(SegQuantError, match="denoiser without a scheduler around it"):
        schedule("default:4", spec=spec, folder=None)


def test_sizes_are_those_of_the_schedule(tmp_path: Path) -> None:
    folder = make_tiny_pipeline("flux", tmp_path / "flux")
    spec = _spec(folder)
    both = schedule(f"default:3:{SIZE}x{SIZE},default:3:64x64", spec=spec, folder=folder)
    loop = PipelineLoop(folder, spec, height=SIZE, width=SIZE)
    assert {*loop.timesteps(3)} < {*both}


@pytest.mark.parametrize(
    "text", ["", "20", "default", "default:0", "default:20,", "default:20:64", "a b:3", "d:99999"]
)
def test_schedules_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(SegQuantError, match="allowed: SCHEDULER:STEPS or SCHEDULER:STEPS:HxW"):
        CompileOptions(out=Path("run"), freeze_schedule=text)
