"""Train one denoiser of the zoo: `python benchmarks/zoo/train.py digits-unet --work DIR`.

Every random number comes from one seeded generator; the state is saved while training goes on, and
the same command continues from it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from data import augmented, load_split
from networks import NULL_CLASS, Conditioning, build, disconnect_dead_units
from objectives import Objective
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how fast one model learns."""

    steps: int
    decay_steps: int
    batch: int
    peak_rate: float
    seed: int
    ema_decay: float = 0.998
    prompt_dropout: float = 0.15
    warmup_steps: int = 100


RECIPES = {
    "digits-unet": Recipe(steps=2400, decay_steps=800, batch=32, peak_rate=1.5e-3, seed=11),
    "digits-mmdit": Recipe(steps=3600, decay_steps=1200, batch=64, peak_rate=1.5e-3, seed=12),
    "digits-flux": Recipe(steps=2000, decay_steps=700, batch=64, peak_rate=1.5e-3, seed=13),
}


class Trainer:
    """Model, conditioning table, their moving average, optimiser and generator."""

    def __init__(self, name: str, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.name, self.recipe, self.step = name, recipe, 0
        self.net = nn.ModuleDict({"model": build(name), "conditioning": Conditioning()})
        disconnect_dead_units(name, self.net["model"])
        self.average = {key: value.clone() for key, value in self.net.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=recipe.peak_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.objective = Objective(name)
        self.digits, _ = load_split()

    def advance(self) -> float:
        """One optimiser step; returns the loss."""
        recipe, gen = self.recipe, self.generator
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        rows = torch.randint(0, len(self.digits.labels), (recipe.batch,), generator=gen)
        dropped = torch.rand(recipe.batch, generator=gen) < recipe.prompt_dropout
        labels = torch.where(dropped, NULL_CLASS, self.digits.labels[rows])
        images = augmented(self.digits, rows, gen)
        loss = self.objective(
            self.net["model"], self.net["conditioning"](labels), images, self.generator
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        disconnect_dead_units(self.name, self.net["model"])
        self.step += 1
        self._update_average()
        return float(loss.detach())

    def _update_average(self) -> None:
        decay = min(self.recipe.ema_decay, self.step / (self.step + 10))
        for key, value in self.net.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1.0 - decay)

    def save(self, path: Path) -> None:
        """Write everything that `restore` needs, atomically."""
        state = {
            "step": self.step,
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def restore(self, path: Path) -> None:
        """Continue from a file that `save` wrote."""
        state = torch.load(path, weights_only=True)
        self.step, self.average = state["step"], state["average"]
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, a plateau, and a linear decay to 2 % of the peak over the last steps."""
    if step < recipe.warmup_steps:
        return recipe.peak_rate * (step + 1) / recipe.warmup_steps
    left = (recipe.steps - step) / recipe.decay_steps
    return recipe.peak_rate * max(0.02, min(1.0, left))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--work", type=Path, required=True, help="folder for the training state")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    state = arguments.work / f"{arguments.name}.pt"
    trainer = Trainer(arguments.name, RECIPES[arguments.name])
    if state.exists():
        trainer.restore(state)
    start, losses = time.monotonic(), []
    while trainer.step < trainer.recipe.steps:
        losses.append(trainer.advance())
        if trainer.step % 50 == 0 or trainer.step == trainer.recipe.steps:
            trainer.save(state)
            mean = sum(losses) / len(losses)
            print(f"{trainer.step} loss {mean:.4f} {time.monotonic() - start:.0f} s", flush=True)
            losses.clear()


if __name__ == "__main__":
    main()
