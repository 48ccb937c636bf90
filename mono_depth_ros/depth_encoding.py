"""Depth in metres -> the 16-bit code of depth images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def millimetres(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Depth as 16-bit images store it (REP 118).

    Args:
        depth: HxW float32 metres.

    Returns:
        HxW uint16 millimetres, rounded; 0 where not finite, not positive, or beyond 65.535 m.
    """
    # In float32 the product itself is rounded, and a half of a millimetre may go the wrong way.
    scaled = np.rint(np.multiply(depth, 1000, dtype=np.float64))
    valid = (scaled > 0) & (scaled <= np.iinfo(np.uint16).max)
    return np.where(valid, scaled, 0).astype(np.uint16)
