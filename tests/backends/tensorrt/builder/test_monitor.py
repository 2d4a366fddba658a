"""The share of a build that is done, and stopping it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.backends.tensorrt.builder.monitor import BuildMonitor, tensorrt_monitor
from tests.contract.tensorrt.fake import VERSIONS, fake_tensorrt
from tests.contract.tensorrt.test_build_flow import Notes


def test_inner_phases_divide_a_step_of_the_outer_one() -> None:
    notes = Notes()
    monitor = BuildMonitor(notes)
    monitor.start("build", None, 4)
    monitor.step("build", 0)
    assert monitor.fraction == 0.25
    monitor.start("tactics", "build", 5)
    monitor.step("tactics", 1)
    assert monitor.fraction == pytest.approx(0.25 + 0.25 * 2 / 5)
    monitor.finish("tactics")
    monitor.step("build", 1)
    assert monitor.fraction == 0.5
    monitor.finish("build")
    assert notes.shares[-1] == 999
    monitor.complete()
    assert (monitor.fraction, notes.shares[-1]) == (1.0, 1000)


def test_of_inner_phases_side_by_side_the_farthest_counts() -> None:
    monitor = BuildMonitor(Notes())
    monitor.start("build", None, 2)
    monitor.start("one", "build", 4)
    monitor.start("other", "build", 10)
    monitor.step("one", 2)
    monitor.step("other", 0)
    assert monitor.fraction == pytest.approx(0.5 * 3 / 4)


def test_the_bar_does_not_end_before_the_build() -> None:
    notes = Notes()
    monitor = BuildMonitor(notes)
    monitor.start("build", None, 2)
    monitor.step("build", 1)
    assert notes.shares[-1] == 999


def test_time_to_go() -> None:
    now = 0.0
    monitor = BuildMonitor(Notes(), clock=lambda: now)
    monitor.start("build", None, 100)
    monitor.step("build", 0)
    now = 5.0
    assert monitor.remaining_s() is None  # one percent says nothing
    monitor.step("build", 19)
    now = 10.0
    assert monitor.remaining_s() == pytest.approx(40.0)


def test_each_quarter_says_how_long_it_will_be() -> None:
    now = 0.0
    notes = Notes()
    monitor = BuildMonitor(notes, clock=lambda: now)
    monitor.start("build", None, 100)
    for step in range(100):
        now += 10.0
        monitor.step("build", step)
    assert notes.notes == [
        "building the engine: 25 % done, about 12 min to go",
        "building the engine: 50 % done, about 8 min to go",
        "building the engine: 75 % done, about 4 min to go",
    ]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "step", "finish"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([None, "", "a", "b"]),
        st.integers(0, 6),
    ),
    max_size=40,
)


@given(EVENTS)
def test_whatever_comes_the_share_grows_and_stays_in_bounds(
    events: list[tuple[str, str, str | None, int]],
) -> None:
    notes = Notes()
    monitor = BuildMonitor(notes)
    for kind, name, parent, number in events:
        if kind == "start":
            monitor.start(name, None if parent == name else parent, number)
        elif kind == "step":
            assert monitor.step(name, number)
        else:
            monitor.finish(name)
    assert notes.shares == sorted(notes.shares)
    assert all(0 <= share < 1000 for share in notes.shares)


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_nothing_is_raised_into_tensorrt(version: str) -> None:
    class Broken(Notes):
        def update(self, label: str, done: int, total: int | None) -> None:
            raise BrokenPipeError("the terminal is gone")

    module, _ = fake_tensorrt(version)
    monitor = BuildMonitor(Broken())
    steps = tensorrt_monitor(module, monitor)
    steps.phase_start("build", None, 2)
    assert steps.step_complete("build", 0) is False
    assert isinstance(monitor.failure, BrokenPipeError)
