"""The order of images: complete, in proportion, and independent of processes and interruptions."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from training.data.augment import Augmentation
from training.data.batches import (
    AugmentedFrames,
    EpochSampler,
    ResumableLoader,
    WholeFrames,
    apportion,
    epoch_order,
)
from training.data.frame import Frame
from training.data.pair import Pair


def wall(number: int) -> Pair:
    """A frame whose red channel and depth tell its number."""
    image = np.full((24, 32, 3), number, np.uint8)
    return Pair(image, np.full((24, 32), 1.0 + number, np.float32), 20.0, 20.0, str(number))


FRAMES = [Frame(str(i), "walls", partial(wall, i)) for i in range(24)]


def loader(workers: int = 0, rank: int = 0, world: int = 1, epoch: int = 0) -> ResumableLoader:
    dataset = AugmentedFrames(FRAMES, (24, 32), 20.0, Augmentation(flip=0.5, colour=1.0), seed=3)
    order = epoch_order([20, 4], [0.75, 0.25], 16, epoch, seed=3)
    sampler = EpochSampler(order, epoch, rank, world)
    return ResumableLoader(dataset, sampler, batch_size=4 // world, num_workers=workers)


def images(batches: Any) -> list[npt.NDArray[np.uint8]]:
    return [image.numpy() for image, _ in batches]


@given(
    images=st.integers(0, 500),
    shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5),
)
def test_apportioned_numbers_add_up_and_are_near_their_shares(
    images: int, shares: list[float]
) -> None:
    counts = apportion(images, shares)
    assert sum(counts) == images
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - images * share / sum(shares)) < 1


@given(size=st.integers(1, 40), epochs=st.integers(1, 6), images=st.integers(1, 60))
def test_no_frame_comes_again_before_all_others_were_seen(
    size: int, epochs: int, images: int
) -> None:
    row = np.concatenate([epoch_order([size], [1.0], images, e, seed=1) for e in range(epochs)])
    counts = Counter(row.tolist())
    often = [counts[i] for i in range(size)]
    assert max(often) - min(often) <= 1


def test_sources_have_their_shares_in_every_epoch() -> None:
    for epoch in range(4):
        order = epoch_order([50, 7, 900], [0.5, 0.2, 0.3], 100, epoch, seed=2)
        assert np.histogram(order, [0, 50, 57, 957])[0].tolist() == [50, 20, 30]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(epoch: int, seed: int) -> bytes:
        return epoch_order([30], [1.0], 30, epoch, seed).tobytes()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) != order(0, 2)


@pytest.mark.slow
def test_batches_do_not_depend_on_the_number_of_loader_processes() -> None:
    for alone, helped in zip(images(loader()), images(loader(workers=2)), strict=True):
        np.testing.assert_array_equal(alone, helped)


def test_the_batches_of_two_processes_make_up_those_of_one() -> None:
    halves = zip(images(loader(rank=0, world=2)), images(loader(rank=1, world=2)), strict=True)
    for whole, (first, second) in zip(images(loader()), halves, strict=True):
        np.testing.assert_array_equal(whole[0::2], first)
        np.testing.assert_array_equal(whole[1::2], second)


def test_an_interrupted_epoch_goes_on_with_the_next_batch() -> None:
    whole = images(loader())
    first = loader()
    iterator = iter(first)
    next(iterator), next(iterator)
    state = first.state_dict()
    again = loader()
    again.load_state_dict(state)
    rest = images(again)
    assert len(rest) == 2
    for expected, got in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(expected, got)
    assert again.state_dict() == {"epoch": 0, "batches": 4}


@pytest.mark.parametrize("state", [{"epoch": 7, "batches": 2}, {"epoch": 0, "batches": 4}])
def test_the_state_of_another_or_a_finished_epoch_starts_at_the_beginning(
    state: dict[str, int],
) -> None:
    again = loader()
    again.load_state_dict(state)
    assert len(images(again)) == 4


def test_article_batches_are_480_by_640_with_depth_at_half_size() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    pair = Pair(image, np.full((480, 640), 2.0, np.float32), 518.0, 518.0, "a")
    frames = [Frame("a", "a", partial(lambda p: p, pair))] * 8
    order = epoch_order([8], [1.0], 8, 0, 0)
    dataset = AugmentedFrames(frames, (480, 640), 518.0, Augmentation(flip=0.5), 0)
    ((images, depth),) = ResumableLoader(dataset, EpochSampler(order, 0), batch_size=8)
    assert images.shape == (8, 3, 480, 640) and images.dtype == torch.uint8
    assert depth.shape == (8, 1, 240, 320) and depth.dtype == torch.float32


def test_validation_frames_are_whole_and_in_order() -> None:
    dataset = WholeFrames(FRAMES, (24, 32), 40.0)
    assert len(dataset) == 24
    image, depth = dataset[5]
    assert image.shape == (3, 24, 32) and (image == 5).all()
    assert depth.shape == (1, 12, 16)
    # Seen with half the focal length that the network is trained for: twice as far.
    np.testing.assert_allclose(depth.numpy(), 12.0)
