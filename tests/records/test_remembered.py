"""What a run folder was told comes back, by stage, and only where nothing else was given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segquant_trt.records.options import CompileOptions
from segquant_trt.records.remembered import REMEMBERED, recall, remember


class Notes:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def update(self, label: str, done: int, total: int | None) -> None:
        raise AssertionError


OTHER: dict[str, Any] = {
    "model": "zoo:digits-flux",
    "subfolder": "transformer",
    "revision": "main",
    "target": "openvino",
    "inputs": Path("/data/a folder/inputs.safetensors"),
    "verify_inputs": Path("/data/held-out"),
    "prompts": Path("/data/prompts.txt"),
    "num_samples": 3,
    "steps": 7,
    "guidance_scale": 2.5,
    "height": 64,
    "width": 32,
    "scheduler": "DDIMScheduler",
    "seed": 9,
    "device": "cuda:1",
    "dtype": "bfloat16",
    "threads": 2,
    "range_method": "amax",
    "weight_scales": "mse",
    "quantize_all": True,
    "keep_float": ("time_*", "it's"),
    "timestep": "t",
    "prompt_inputs": ("tokens", "pooled"),
    "preset": "segquant",
    "objective": "speed",
    "max_latency": "1.05x",
    "target_sqnr": 30.5,
    "weight_bits": 4,
    "weight_only": True,
    "weight_block": "channel",
    "rules": Path("/data/rules.yaml"),
    "costs": Path("/data/costs.yaml"),
    "cost_scale": "16,12",
    "trials": False,
    "freeze_schedule": "default:20,EulerDiscreteScheduler:8:64x96",
    "hoist_prompt": True,
    "fallback": False,
    "full": True,
}


def test_every_remembered_option_is_tried() -> None:
    assert set(OTHER) == set(REMEMBERED)


def options(folder: Path, **given: Any) -> CompileOptions:
    return CompileOptions(out=folder, **given)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".stages").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", list(OTHER))
def test_an_option_comes_back(name: str, folder: Path) -> None:
    told = options(folder, **{"model": "zoo:digits-flux", name: OTHER[name]})
    remember(told, REMEMBERED)
    notes = Notes()
    bare = options(folder, model=told.model)
    found = recall(bare, REMEMBERED, given=(), progress=notes)
    assert found == told
    flag = ("--no-" if OTHER[name] is False else "--") + name.replace("_", "-")
    assert [flag in note for note in notes.texts] == ([] if name == "model" else [True])


def test_given_options_win_and_so_does_a_given_default(folder: Path) -> None:
    remember(options(folder, target="openvino", range_method="amax"), REMEMBERED)
    given = options(folder, target="onnxruntime", keep_float=("x",))
    found = recall(given, ("target", "range_method"), given={"target", "out"}, progress=Notes())
    assert found == replace(given, range_method="amax")


def test_a_stage_takes_and_changes_its_own_options_alone(folder: Path) -> None:
    remember(options(folder, target="openvino", steps=5, seed=3), REMEMBERED)
    notes = Notes()
    bare = options(folder)
    assert recall(bare, ("target",), given=(), progress=notes) == replace(bare, target="openvino")
    assert "--steps" not in notes.texts[0]
    remember(options(folder, steps=6), ("target",))
    rest = recall(bare, REMEMBERED, given=(), progress=notes)
    assert rest == replace(bare, steps=5, seed=3)


def test_a_new_compilation_starts_over(folder: Path) -> None:
    remember(options(folder, target="openvino", steps=5), REMEMBERED)
    remember(options(folder, steps=6), REMEMBERED)
    found = recall(options(folder), REMEMBERED, given=(), progress=Notes())
    assert found == options(folder, steps=6)


def test_another_models_subfolder_is_not_taken(folder: Path) -> None:
    remember(options(folder, model="a", subfolder="unet", revision="v1", steps=5), REMEMBERED)
    same = recall(options(folder, model="a"), REMEMBERED, given=(), progress=Notes())
    assert (same.subfolder, same.revision) == ("unet", "v1")
    other = recall(options(folder, model="b"), REMEMBERED, given=(), progress=Notes())
    assert other == options(folder, model="b", steps=5)


def test_paths_lead_to_the_same_place_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    remember(options(folder, inputs=Path("mine.safetensors")), REMEMBERED)
    monkeypatch.chdir("/")
    found = recall(options(folder), REMEMBERED, given=(), progress=Notes())
    assert found.inputs == folder / "mine.safetensors"


def test_nothing_told_leaves_no_file_and_no_note(folder: Path) -> None:
    notes = Notes()
    remember(options(folder), REMEMBERED)
    assert recall(options(folder), REMEMBERED, given=(), progress=notes) == options(folder)
    assert notes.texts == []
    assert list((folder / ".stages").iterdir()) == []


def test_what_is_known_already_is_not_written_again(folder: Path) -> None:
    remember(options(folder, steps=5, keep_float=("a",)), REMEMBERED)
    path = folder / ".stages" / "options.json"
    path.chmod(0o400)
    before = path.stat()
    remember(options(folder, steps=5, keep_float=("a",)), REMEMBERED)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "\xff",
        '{"steps": "many"}',
        '{"steps": 0}',
        '{"no_option": 1}',
        '{"force": true}',
        '{"target": "npu"}',
        '{"keep_float": [1]}',
        '{"inputs": 3}',
    ],
)
def test_a_damaged_memory_is_noted_ignored_and_replaced(text: str, folder: Path) -> None:
    path = folder / ".stages" / "options.json"
    path.write_bytes(text.encode("latin-1"))
    notes = Notes()
    assert recall(options(folder), REMEMBERED, given=(), progress=notes) == options(folder)
    (note,) = notes.texts
    assert str(path) in note
    assert note.endswith("it is not used")
    assert "\n" not in note
    remember(options(folder, seed=4), ("seed",))
    assert json.loads(path.read_text()) == {"seed": 4}
