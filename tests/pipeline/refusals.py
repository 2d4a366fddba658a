"""What every refusal has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segquant_trt.errors import SegQuantError


def refusal(call: Callable[[], object]) -> SegQuantError:
    """The error of `call`, which must say something on one line and give a hint."""
    with pytest.raises(SegQuantError) as refused:
        call()
    assert refused.value.hint
    assert "\n" not in refused.value.what
    return refused.value
