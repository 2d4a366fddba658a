"""Write a trained model into the package: `python benchmarks/zoo/ship.py digits-unet --work DIR`.

The moving average of the weights is stored as float16 in diffusers' layout, beside the scheduler
and the conditioning table.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from networks import NULL_CLASS, Conditioning, build, disconnect_dead_units
from objectives import scheduler
from safetensors.torch import save_file

DATA = Path(__file__).parents[2] / "segquant_trt/models/zoo_data"


def ship(name: str, average: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the model's whole folder."""
    component = "unet" if name == "digits-unet" else "transformer"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / component).mkdir(parents=True)
    model, conditioning = build(name), Conditioning()
    model.load_state_dict(_below(average, "model."))
    conditioning.load_state_dict(_below(average, "conditioning."))
    disconnect_dead_units(name, model)
    model.save_config(folder / component)
    halves = {key: value.to(torch.float16) for key, value in model.state_dict().items()}
    weights = folder / component / "diffusion_pytorch_model.safetensors"
    save_file(halves, weights, metadata={"format": "pt"})
    sampler = scheduler(name)
    sampler.save_config(folder / "scheduler")
    with torch.inference_mode():
        tokens, pooled = conditioning(torch.arange(NULL_CLASS + 1))
    table = {"tokens": tokens} if name == "digits-unet" else {"tokens": tokens, "pooled": pooled}
    save_file({key: value.contiguous() for key, value in table.items()}, _conditioning(folder))
    index = {
        "_class_name": "DiffusionPipeline",
        component: ["diffusers", type(model).__name__],
        "scheduler": ["diffusers", type(sampler).__name__],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _conditioning(folder: Path) -> Path:
    return folder / "conditioning.safetensors"


def _below(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("digits-unet", "digits-mmdit", "digits-flux"))
    parser.add_argument("--work", type=Path, required=True, help="folder of the training state")
    parser.add_argument("--out", type=Path, default=DATA, help="where the model's folder goes")
    arguments = parser.parse_args()
    state = torch.load(arguments.work / f"{arguments.name}.pt", weights_only=True)
    ship(arguments.name, state["average"], arguments.out / arguments.name)


if __name__ == "__main__":
    main()
