"""Which messages of two topics belong together, by their stamps."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt


def stamp_of(raw: bytes) -> int:
    """The stamp of a serialised message that starts with a header, in nanoseconds.

    CDR: four bytes, the second of which tells the byte order, then sec and nanosec.

    Raises:
        struct.error: the message is shorter than that.
    """
    sec, nanosec = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def _nearest(
    stamps: npt.NDArray[np.int64], among: npt.NDArray[np.int64], earlier: bool
) -> npt.NDArray[np.intp]:
    """Index of the nearest of `among`, sorted, to each stamp; `earlier` wins a tie or loses it."""
    after = np.searchsorted(among, stamps).clip(max=len(among) - 1)
    before = (after - 1).clip(min=0)
    lead = (stamps - among[before]) - (among[after] - stamps)
    return np.where(lead <= 0 if earlier else lead < 0, before, after)


def match_stamps(
    images: npt.NDArray[np.int64], depths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], float]:
    """Pairs that are each other's nearest, within half of the shorter median period.

    Args:
        images, depths: N and M stamps, ascending and distinct, at least one each.

    Returns:
        Indices into `images`, as many into `depths`, none twice; and the widest gap allowed.
    """
    periods = [np.median(np.diff(stamps)) for stamps in (images, depths) if len(stamps) > 1]
    tolerance = float(min(periods, default=0)) / 2
    # Were ties to go the same way, a stream half a period off would lose every pair.
    depth_of = _nearest(images, depths, earlier=True)
    image_of = _nearest(depths, images, earlier=False)
    index = np.arange(len(images))
    good = (image_of[depth_of] == index) & (np.abs(depths[depth_of] - images) <= tolerance)
    return index[good], depth_of[good], tolerance
