from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records import BundleFile, Considered
from tests.report.runs import Run, bare_run, photo_images, zoo_run

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \"quoted\" $\\frac$"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.rows += tag == "tr" and "data-role" in dict(attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


def hostile_run() -> Run:
    run = zoo_run(4)
    site = replace(
        run.plan.sites[3],
        module=HOSTILE,
        why=HOSTILE,
        considered=(Considered(option=HOSTILE, sqnr_db=None, cost_ms=None, reason=HOSTILE),),
    )
    assert run.images is not None
    return replace(
        run,
        spec=replace(run.spec, source=HOSTILE, class_name=HOSTILE),
        facts=replace(run.facts, notes=(HOSTILE,)),
        plan=replace(run.plan, preset=HOSTILE, sites=(*run.plan.sites[:3], site)),
        manifest=replace(run.manifest, versions={HOSTILE: HOSTILE}),
        benchmark=replace(run.benchmark, hardware={HOSTILE: HOSTILE}, shapes={HOSTILE: (1,)}),
        images=replace(run.images, labels=(HOSTILE,) * 16),
        quality=replace(run.quality, not_applicable=(HOSTILE,)),
    )


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    assert zoo_run(20).write(tmp_path / "a.html") == zoo_run(20).write(tmp_path / "b.html")


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    text = zoo_run(20).write(tmp_path / "r.html")
    links = [
        value
        for _, attributes in Page(text).tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "xlink:href")
    ]
    assert len(links) > 48
    assert [link for link in links if not str(link).startswith(("data:", "#"))] == []
    assert re.findall(r"@import|url\((?!#)", text) == []
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/1999/xlink"}


def test_policy_admits_only_the_page_s_own_script(tmp_path: Path) -> None:
    text = zoo_run(4).write(tmp_path / "r.html")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text  # fmt: skip # noqa: E501


def test_names_are_escaped(tmp_path: Path) -> None:
    page = Page(hostile_run().write(tmp_path / "r.html"))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, attributes in page.tags if "onerror" in attributes]
    # Module, why, option and its reason, preset, note, version twice, hardware twice, ...
    assert page.text.count("alert('x')") > 20


def test_headline_figures(tmp_path: Path) -> None:
    text = Page(zoo_run().write(tmp_path / "r.html")).text
    for figure in (
        "zoo:digits-unet", "31.4 dB", "worst 26.8 dB", "24.7 dB", "float16 alone: 58.9 dB",
        "33.1 dB", "SSIM 0.9874", "3.73×", "5.91 MB → 1.59 MB", "1.49×",
        "faster; 95 % interval 1.46–1.52", "98.7 %", "116 of 118 sites", "float16 noise floor",
        "12.4 ms", "onnxruntime 1.31.1", "bundle/manifest.json",
    ):  # fmt: skip
        assert figure in text


def test_denoiser_without_pipeline_classifier_and_images(tmp_path: Path) -> None:
    page = Page(bare_run().write(tmp_path / "r.html"))
    assert "Not applicable to this input: SQNR of the final latent, image PSNR" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text
    assert "img" not in [tag for tag, _ in page.tags]
    assert "slower; 95 % interval 0.90–0.97" in page.text
    assert page.rows == 9


def test_empty_plan(tmp_path: Path) -> None:
    run = bare_run()
    run = replace(
        run,
        plan=replace(run.plan, sites=()),
        manifest=replace(run.manifest, size_bytes_quantized=0),
    )
    assert Page(run.write(tmp_path / "r.html")).rows == 0


def test_large_models_stay_small_pages(tmp_path: Path) -> None:
    run = replace(zoo_run(750), images=photo_images(8, 512))
    text = run.write(tmp_path / "r.html")
    assert Page(text).rows == 750
    assert len(text.encode()) < 2_000_000


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.html").mkdir()
    with pytest.raises(SegQuantError, match=r"writing .*r\.html failed"):
        zoo_run(4).write(tmp_path / "r.html")


def test_manifest_file_names_do_not_leak_into_markup(tmp_path: Path) -> None:
    run = zoo_run(4)
    file = BundleFile(name=HOSTILE, sha256="0", size_bytes=1)
    plain = run.write(tmp_path / "a.html")
    assert (
        replace(run, manifest=replace(run.manifest, files=(file,))).write(tmp_path / "b") == plain
    )
