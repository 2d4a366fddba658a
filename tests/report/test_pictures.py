from __future__ import annotations

import base64
import io
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segquant_trt.records.images import ReportImages
from segquant_trt.report.pictures import Gallery, gallery
from tests.report.runs import digit_images, photo_images


def pixels(uri: str) -> npt.NDArray[np.uint8]:
    assert uri.startswith("data:image/png;base64,")
    data = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


def shown(images: ReportImages) -> Gallery:
    result = gallery(images)
    assert result is not None
    return result


def test_small_images_are_kept_pixel_by_pixel() -> None:
    images = digit_images(5)
    result = shown(images)
    assert result.pixelated
    assert (result.width, result.height, result.total) == (16, 16, 5)
    for i, picture in enumerate(result.pictures):
        expected = np.rint(images.quantized_images[i] * 255)
        np.testing.assert_array_equal(pixels(picture.quantized_uri), expected)
        assert picture.label == images.labels[i]


def test_psnr_is_that_of_skimage() -> None:
    from skimage.metrics import peak_signal_noise_ratio

    images = digit_images(3)
    for i, picture in enumerate(shown(images).pictures):
        expected = peak_signal_noise_ratio(
            images.float_images[i], images.quantized_images[i], data_range=1.0
        )
        assert picture.psnr_db == pytest.approx(expected, abs=1e-4)


def test_difference_is_brightest_where_the_images_differ_most() -> None:
    images = digit_images(4)
    result = shown(images)
    difference = np.abs(images.float_images - images.quantized_images)
    where = np.unravel_index(difference.argmax(), difference.shape)
    assert result.difference_limit == pytest.approx(difference.max())
    brightness = np.stack([pixels(p.difference_uri).sum(axis=-1) for p in result.pictures])
    assert brightness[where] == brightness.max()
    assert brightness[difference == 0].max() == brightness.min()


def test_equal_images_have_infinite_psnr() -> None:
    images = digit_images(2)
    same = replace(images, quantized_images=images.float_images)
    assert all(math.isinf(picture.psnr_db) for picture in shown(same).pictures)


def test_broken_images_are_shown() -> None:
    images = digit_images(2)
    broken = np.full_like(images.quantized_images, np.nan)
    result = shown(replace(images, quantized_images=broken))
    assert math.isnan(result.pictures[0].psnr_db)
    assert pixels(result.pictures[0].quantized_uri).max() == 0


def test_large_images_fit_the_budget() -> None:
    result = shown(photo_images(8, 512))
    assert len(result.pictures) == 6
    assert result.total == 8
    assert not result.pixelated
    uris = [(p.float_uri, p.quantized_uri, p.difference_uri) for p in result.pictures]
    assert sum(len(uri) for row in uris for uri in row) < 1_000_000
    assert pixels(uris[0][0]).shape[2] == 3


def test_oblong_images_keep_their_shape() -> None:
    images = digit_images(1)
    oblong = replace(
        images,
        float_images=images.float_images[:, :9],
        quantized_images=images.quantized_images[:, :9],
    )
    assert pixels(shown(oblong).pictures[0].float_uri).shape == (9, 16)
    wide = photo_images(1, 512)
    wide = replace(
        wide,
        float_images=wide.float_images[:, :256],
        quantized_images=wide.quantized_images[:, :256],
    )
    assert pixels(shown(wide).pictures[0].float_uri).shape == (192, 384, 3)


def test_no_images_no_gallery() -> None:
    empty = np.zeros((0, 16, 16), dtype=np.float32)
    images = ReportImages(float_images=empty, quantized_images=empty, seeds=())
    assert gallery(images) is None
