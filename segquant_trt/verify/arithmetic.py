"""Does the runtime compute what the plan means?

The rewritten graph, run node by node as written, says what the plan costs. A bundle that is far
further from the float model than that has wrong arithmetic, whatever the cause: saturating
multiply-adds on CPUs without VNNI, mishandled padding, a scale that moved. Seen here: OpenVINO's
own int8 kernels gave 8 dB on an AVX2 CPU where the plan is worth 26.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.models.loop import Array, Denoise
from segquant_trt.verify.figures import sqnr_db

TOLERANCE_DB = 3.0  # two correct integer executions of a deep network differ by less


def check_arithmetic(
    reference: Denoise,
    literal: Denoise,
    bundle: Denoise,
    batches: Sequence[Mapping[str, Array]],
    *,
    target: str,
) -> None:
    """Compare the bundle's SQNR with that of the graph as written.

    Raises:
        SegQuantError: the bundle is more than `TOLERANCE_DB` worse.
    """
    meant, found = [], []
    for inputs in batches:
        expected = reference(inputs)
        meant.append(sqnr_db(expected, literal(inputs)))
        found.append(sqnr_db(expected, bundle(inputs)))
    meant_db, found_db = (float(np.mean(np.concatenate(parts))) for parts in (meant, found))
    if found_db < meant_db - TOLERANCE_DB:
        raise SegQuantError(
            f"the {target} bundle reaches {found_db:.1f} dB where its plan is worth "
            f"{meant_db:.1f} dB: this runtime computes something else on this machine",
            hint="update the runtime, or compile for another --target; "
            "'segquant-trt doctor' shows this CPU's integer instructions",
        )
