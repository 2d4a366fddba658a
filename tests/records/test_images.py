from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records.images import ReportImages, load_images, save_images


def images(*shape: int, labels: tuple[str, ...] = ()) -> ReportImages:
    rng = np.random.default_rng(1)
    return ReportImages(
        float_images=rng.random(shape, dtype=np.float32),
        quantized_images=rng.random(shape, dtype=np.float32),
        seeds=tuple(range(10, 10 + shape[0])),
        labels=labels,
    )


@pytest.mark.parametrize(
    "before",
    [images(3, 5, 7), images(2, 4, 4, 3, labels=("a", "日本 <b>")), images(0, 4, 4)],
    ids=["grey", "rgb", "none"],
)
def test_round_trip(before: ReportImages, tmp_path: Path) -> None:
    save_images(tmp_path / "a", before)
    save_images(tmp_path / "b", before)
    after = load_images(tmp_path / "a")
    np.testing.assert_array_equal(after.float_images, before.float_images)
    np.testing.assert_array_equal(after.quantized_images, before.quantized_images)
    assert (after.seeds, after.labels) == (before.seeds, before.labels)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_parts_must_fit_together() -> None:
    grey = images(2, 4, 4)
    whole = {"float_images": grey.float_images, "quantized_images": grey.quantized_images}
    with pytest.raises(SegQuantError, match="2 report images have 1 seeds"):
        ReportImages(**whole, seeds=(1,))
    with pytest.raises(SegQuantError, match="3 labels"):
        ReportImages(**whole, seeds=(1, 2), labels=("a", "b", "c"))
    with pytest.raises(SegQuantError, match=r"\(2, 4, 4\) and \(2, 4, 3\)"):
        ReportImages(**{**whole, "quantized_images": grey.float_images[:, :, :3]}, seeds=(1, 2))
    with pytest.raises(SegQuantError, match="float64"):
        ReportImages(**{**whole, "quantized_images": np.zeros((2, 4, 4))}, seeds=(1, 2))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    from safetensors.numpy import save

    with pytest.raises(SegQuantError, match="images does not exist"):
        load_images(tmp_path / "images")
    save_images(tmp_path / "images", images(2, 8, 8))
    whole = (tmp_path / "images").read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], save({"x": np.zeros(2)})):
        (tmp_path / "images").write_bytes(damaged)
        with pytest.raises(SegQuantError, match="does not hold report images"):
            load_images(tmp_path / "images")
