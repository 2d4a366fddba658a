"""Train the judge: `python benchmarks/zoo/classifier.py`, about a minute.

Writes digits-classifier.onnx and digits-reference.safetensors into the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import Digits, augmented, load_split
from torch import nn

DATA = Path(__file__).parents[2] / "segquant_trt/models/zoo_data"
SEED = 5
FEATURES = 48


class Classifier(nn.Module):
    """images float32[N, 1, 16, 16] in 0..1 -> logits float32[N, 10], features float32[N, 48]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(48, 48, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(48 * 16, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(images)
        return self.head(features), features


def train(digits: Digits, steps: int) -> Classifier:
    """Adam on augmented views with a little noise."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(digits.labels), (128,), generator=generator)
        images = augmented(digits, rows, generator)
        images = images + 0.03 * torch.randn(images.shape, generator=generator)
        loss = F.cross_entropy(model(images)[0], digits.labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def accuracy(model: Classifier, digits: Digits) -> float:
    """Share of digits that the model names correctly."""
    with torch.inference_mode():
        return float((model(digits.images)[0].argmax(1) == digits.labels).float().mean())


def export(model: Classifier, path: Path) -> None:
    """Write the ONNX file with a dynamic batch and without any trace of where it was made."""
    import onnx
    from onnx import helper, numpy_helper

    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 16, 16),),
        input_names=["images"],
        output_names=["logits", "features"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
    )
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    del proto.graph.metadata_props[:], proto.metadata_props[:]
    helper.set_model_props(proto, {})
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def write_reference(model: Classifier, splits: tuple[Digits, Digits], path: Path) -> None:
    """Mean and covariance of the features over training and held-out digits together."""
    from safetensors.numpy import save_file

    with torch.inference_mode():
        features = torch.cat([model(digits.images)[1] for digits in splits]).double().numpy()
    save_file({"mean": features.mean(axis=0), "covariance": np.cov(features, rowvar=False)}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train_digits, held_out = load_split()
    model = train(train_digits, arguments.steps)
    print(f"training {accuracy(model, train_digits):.4f}, held out {accuracy(model, held_out):.4f}")
    DATA.mkdir(parents=True, exist_ok=True)
    export(model, DATA / "digits-classifier.onnx")
    write_reference(model, (train_digits, held_out), DATA / "digits-reference.safetensors")


if __name__ == "__main__":
    main()
