"""Subjects of a small run side by side: figures that can be recomputed, files, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from segquant_trt.bench.cases import Interface
from segquant_trt.bench.rounds import Effort
from segquant_trt.bench.timed import HostSubject
from segquant_trt.errors import SegQuantError
from segquant_trt.pipeline.comparison.asked import KINDS, Asked, asked_for, unique_names
from segquant_trt.pipeline.comparison.compare import ComparisonRequest, compare, on_shared_steps
from segquant_trt.pipeline.comparison.contestant import Contestant
from segquant_trt.pipeline.comparison.outputs import Outputs
from segquant_trt.records import FrozenSteps
from segquant_trt.records.codec import from_plain
from segquant_trt.records.comparison import Comparison
from tests.bundles import WIDTH
from tests.pipeline.side_by_side import make_run
from tests.small_graphs import linear_nodes, save_graph

QUICK = Effort(iterations=9, duration_s=0.0, warm_up_ms=0.0)
MACS = WIDTH * WIDTH


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("side") / "small"
    make_run(folder)
    return folder


def request(*subjects: Path | str, **more: object) -> ComparisonRequest:
    defaults: dict[str, object] = {"effort": QUICK, "threads": 1, "memory": False}
    return ComparisonRequest(subjects=tuple(map(str, subjects)), **{**defaults, **more})  # type: ignore[arg-type]


def test_a_run_folder_is_its_bundle_beside_its_float_model(run: Path) -> None:
    comparison, written = compare(request(run, against=("float",), memory=True, top=2))
    assert written == ()
    assert comparison.reference == "small (float)"
    bundle, reference = comparison.subjects
    assert (bundle.subject, bundle.kind, bundle.latent_sqnr_db) == ("small", "bundle", 40.5)
    stored = (run / "bundle" / "model.onnx").stat().st_size
    stored += (run / "bundle" / "weights.bin").stat().st_size
    assert bundle.size_bytes == stored
    assert bundle.macs_integer_share == 1.0
    assert min(bundle.peak_memory_bytes or 0, reference.peak_memory_bytes or 0) > 2**24
    assert bundle.device_memory_bytes is None
    assert {len(bundle.kernels), len(reference.kernels)} == {2}
    (case,) = comparison.cases
    assert case.lengths == {"batch": 2, "tokens": 8}
    assert case.shapes == {"x": (2, 8, WIDTH), "e": (2, WIDTH)}
    quantised, plain = case.subjects
    assert plain.speedup is None
    assert quantised.speedup is not None
    assert quantised.speedup.low <= quantised.speedup.median <= quantised.speedup.high
    assert 25.0 < (quantised.answer_sqnr_db or 0.0) < 60.0
    (ceiling,) = case.ceilings
    assert ceiling.macs == 2 * 8 * MACS + 2 * MACS
    assert (ceiling.coded_share, ceiling.speedup_attention_16bit) == (1.0, 2.0)


def test_the_answer_s_figure_can_be_recomputed(run: Path) -> None:
    from segquant_trt.backends.denoise import float_denoise
    from segquant_trt.serve import load

    rng = np.random.default_rng(3)
    inputs = {
        "x": rng.standard_normal((3, 4, WIDTH)).astype(np.float32),
        "e": rng.standard_normal((3, WIDTH)).astype(np.float32),
    }
    save_file(inputs, run / "call.safetensors")
    found, _ = compare(request(run, inputs=run / "call.safetensors"))
    assert found.cases[0].batch == 3
    assert found.cases[0].title == "batch 3, tokens 4"
    wanted = float_denoise(run / "model.onnx", run, threads=1)(inputs).astype(np.float64)
    error = wanted - load(run / "bundle", threads=1).run(inputs)
    per_sample = [10 * np.log10((wanted[i] ** 2).sum() / (error[i] ** 2).sum()) for i in range(3)]
    assert found.cases[0].subjects[0].answer_sqnr_db == pytest.approx(np.mean(per_sample))


def test_the_same_subject_twice_is_timed_once_and_files_have_names_of_their_own(run: Path) -> None:
    found, _ = compare(
        request(run, run / "bundle", run / "quantized.onnx", against=(f"float:{run}",))
    )
    names = [facts.subject for facts in found.subjects]
    assert names[0] == "small"
    assert names[1:] == ["small/quantized.onnx (ONNX Runtime)", "small (float)"]
    figures = {each.subject: each for each in found.cases[0].subjects}
    assert figures[names[0]].answer_sqnr_db == figures[names[1]].answer_sqnr_db


def test_sizes_are_swept_and_ratios_are_of_one_size(run: Path) -> None:
    found, _ = compare(request(run, axes={"batch": (1, 3), "tokens": (4,)}))
    assert [case.lengths for case in found.cases] == [
        {"batch": batch, "tokens": 4} for batch in (1, 3)
    ]
    assert [case.batch for case in found.cases] == [1, 3]
    # Timed at another size than its own, whose ceiling is printed too.
    assert [ceiling.macs for ceiling in found.cases[0].ceilings] == [5 * MACS, 9 * MACS]
    assert "typical size (tokens 8)" in found.cases[0].ceilings[1].of


def test_everything_that_was_asked_for_is_written(run: Path, tmp_path: Path) -> None:
    outputs = Outputs(
        record=tmp_path / "out" / "r.json",
        times=tmp_path / "t.json",
        plot=tmp_path / "p.svg",
        page=tmp_path / "p.html",
    )
    found, written = compare(request(run), outputs)
    assert all(path.stat().st_size for path in written)
    assert len(written) == 2 + 3  # times of two subjects
    assert outputs.record is not None
    stored = json.loads(outputs.record.read_text())
    assert from_plain(stored, Comparison, origin="r.json") == found
    calls = json.loads(written[0].read_text())
    assert len(calls) == found.cases[0].subjects[0].latency.runs == 9


@pytest.mark.parametrize("name", ["bundle/model.onnx", "quantized.onnx"])
def test_a_record_beside_a_file_knows_its_axes(name: str, run: Path) -> None:
    found, _ = compare(request(run / name))
    assert found.cases[0].lengths == {"batch": 2, "tokens": 8}
    assert (
        found.subjects[0].subject == f"{(run / name).parent.name}/{Path(name).name} (ONNX Runtime)"
    )


def test_a_graph_without_codes_is_told_what_coding_would_allow(run: Path) -> None:
    found, _ = compare(request(f"float:{run}"))
    (ceiling,) = found.cases[0].ceilings
    assert ceiling.of == "small (float), were all its weights coded"
    assert ceiling.speedup_attention_8bit == 2.0
    assert found.cases[0].subjects[0].speedup is None


def plain_onnx(path: Path, width: int = 3, weight: float = 1.0) -> Path:
    weights = {
        "fc.weight": np.full((width, width), weight, np.float32),
        "fc.bias": np.zeros(width, np.float32),
    }
    nodes = linear_nodes("fc", "x", "y", bias=True, stored=False)
    return save_graph(path, nodes, {"x": ["rows", width]}, ["y"], weights, external=False)


def test_a_plain_onnx_file_needs_a_length_for_its_axis(tmp_path: Path) -> None:
    path = plain_onnx(tmp_path / "m.onnx")
    with pytest.raises(SegQuantError, match="axis 'rows' of input 'x' has no length"):
        compare(request(path))
    by_axis, _ = compare(request(path, axes={"rows": (4,)}))
    by_shape, _ = compare(request(path, shapes={"x": (4, 3)}))
    assert by_axis.cases[0].shapes == by_shape.cases[0].shapes == {"x": (4, 3)}
    assert by_axis.subjects[0].subject == f"{tmp_path.name}/m.onnx (ONNX Runtime)"


BAD = [
    pytest.param(["gone"], {}, "gone does not exist", id="missing"),
    pytest.param(["empty"], {}, "is no bundle .* and no run folder", id="empty folder"),
    pytest.param(["notes.txt"], {}, "no ONNX file and no engine by its name", id="suffix"),
    pytest.param(["broken.onnx"], {}, "is not a readable ONNX model", id="broken onnx"),
    pytest.param(["nan.onnx"], {"axes": {"rows": (2,)}}, "answers with NaN", id="nan"),
    pytest.param(
        ["one.onnx", "wide.onnx"],
        {"axes": {"rows": (2,)}},
        r"cannot be set side by side: input 'x' of .*/one.onnx \(ONNX Runtime\) is float32\[rows",
        id="unequal inputs",
    ),
    pytest.param(["one.onnx"], {"against": ("torch",)}, "'torch' names no model", id="no run"),
    pytest.param(["float:one.onnx"], {}, "is no run folder with an exported model", id="no float"),
    pytest.param(["torch:one.onnx"], {}, "one.onnx is a file; a model is a folder", id="torch"),
    pytest.param(["one.onnx"], {"threads": 0}, "threads is 0", id="threads"),
    pytest.param(["one.onnx"], {"top": -1}, "profile is -1", id="profile"),
    pytest.param(
        ["one.onnx"],
        {"axes": {"rows": (2,)}, "shapes": {"x": (2, 3)}},
        "--shapes and --batch, --height, --width and --axis both say",
        id="two sources",
    ),
    pytest.param(
        ["one.onnx"], {"axes": {"depth": (2,)}}, "no input has an axis 'depth'", id="axis"
    ),
    pytest.param(["one.onnx"], {"shapes": {"x": (2, 4)}}, r"has shape \(2, 4\)", id="shape"),
    pytest.param(
        ["gone.engine"],
        {},
        "there is no engine gone.engine|gone.engine does not exist",
        id="no engine",
    ),
]


@pytest.mark.parametrize(("subjects", "more", "message"), BAD)
def test_bad_subjects_are_one_error(
    subjects: list[str],
    more: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "broken.onnx").write_bytes(b"\x00\x01 no model")
    plain_onnx(tmp_path / "one.onnx")
    plain_onnx(tmp_path / "nan.onnx", weight=float("nan"))
    plain_onnx(tmp_path / "wide.onnx", width=5)
    with pytest.raises(SegQuantError, match=message):
        compare(request(*subjects, **more))


@pytest.mark.parametrize(
    ("field", "name", "message"),
    [
        ("plot", "plot.bmp", r"is no plot by its name; allowed: \.svg, \.png, \.pdf"),
        ("record", ".", "is a folder; a file is wanted"),
        ("page", "file/page.html", "failed"),
        ("times", "/proc/times.json", "failed|cannot be written"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_timing(
    field: str, name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    outputs = Outputs(**{field: tmp_path / name})
    with pytest.raises(SegQuantError, match=message):
        compare(request("never-looked-at"), outputs)


def test_an_altered_bundle_is_refused(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    weights = copy / "bundle" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    with pytest.raises(SegQuantError, match=r"was altered|truncated"):
        compare(request(copy))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.startswith("tensorrt") or kind == "torchao-fp8"]
)
def test_what_needs_a_gpu_says_so(kind: str, run: Path) -> None:
    from segquant_trt.backends.tensorrt.device import find_devices

    try:
        find_devices()
    except SegQuantError:
        with pytest.raises(SegQuantError, match="NVIDIA"):
            compare(request(run, against=(kind,)))
    else:
        pytest.skip("there is a GPU")


def test_words_that_name_a_subject(run: Path) -> None:
    named = asked_for(
        ["float", str(run), f"torch:{run}", "torch-compile:zoo:digits-flux"], beside=run
    )
    assert [(asked.kind, asked.where) for asked in named] == [
        ("float", str(run)),
        ("bundle", str(run / "bundle")),
        ("torch", str(run)),
        ("torch-compile", "zoo:digits-flux"),
    ]
    assert [asked.text for asked in asked_for(asked.text for asked in named)] == [
        asked.text for asked in named
    ]


def test_names_that_would_be_equal_are_numbered(tmp_path: Path) -> None:
    subjects = []
    for folder in ("a/x", "b/x"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "m.onnx").write_text("")
        subjects.append(Asked(kind="openvino", where=str(tmp_path / folder / "m.onnx")))
    assert unique_names(subjects) == ["x/m.onnx (openvino)", "x/m.onnx (openvino) #2"]


def test_a_failed_measurement_of_memory_is_a_note(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process is killed for want of memory."""
    import sys

    killed = run / "killed.sh"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    found, _ = compare(request(run, memory=True))
    assert [facts.peak_memory_bytes for facts in found.subjects] == [None, None]
    assert found.notes[0] == "measuring the memory of small failed: exit status -9"


def frozen_at(name: str, *timesteps: float) -> Contestant:
    frozen = FrozenSteps(
        schedule="s", timestep="t", timesteps=timesteps, sites=(), macs_per_sample=0, fallback=True
    )
    subject = HostSubject(name=name, inputs=(), denoise=lambda inputs: inputs["t"])
    asked = Asked(kind="bundle", where=name)
    return Contestant(asked=asked, subject=subject, interface=Interface(inputs=()), frozen=frozen)


def test_frozen_bundles_are_timed_at_a_step_that_all_have() -> None:
    inputs = {"t": np.array([0.4, 0.9], dtype=np.float32)}
    alone = on_shared_steps([frozen_at("a", 0.25, 0.5, 1.0)], inputs)
    np.testing.assert_array_equal(alone["t"], np.float32([0.5, 1.0]))
    both = on_shared_steps([frozen_at("a", 0.25, 0.5, 1.0), frozen_at("b", 0.25, 0.75)], inputs)
    np.testing.assert_array_equal(both["t"], np.float32([0.25, 0.25]))
    with pytest.raises(SegQuantError, match="a and c are frozen to schedules that share no"):
        on_shared_steps([frozen_at("a", 0.25, 0.5), frozen_at("c", 0.3)], inputs)
