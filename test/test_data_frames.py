"""Lists of frames: reading, keeping, dividing and naming them."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.frame import (
    DataError,
    Frame,
    data_list_hash,
    in_memory,
    load,
    split_frames,
)
from training.data.pair import Pair


def read(value: int) -> Pair:
    if value < 0:
        raise DataError(f"frame {value}: missing")
    image, depth = np.full((2, 3, 3), value, np.uint8), np.full((2, 3), value, np.float32)
    return Pair(image, depth, 10.0, 10.0, str(value))


def frames_of(scenes: list[str]) -> list[Frame]:
    return [Frame(str(i), scene, partial(read, i)) for i, scene in enumerate(scenes)]


def test_loading_keeps_the_order() -> None:
    assert [pair.name for pair in load(frames_of(["a"] * 40), threads=3)] == [
        str(i) for i in range(40)
    ]


def test_a_frame_that_cannot_be_read_is_an_error_of_its_own() -> None:
    frames = [*frames_of(["a"] * 3), Frame("bad", "a", partial(read, -1))]
    for attempt in (load, in_memory):
        with pytest.raises(DataError, match="frame -1: missing"):
            attempt(frames)


def test_frames_in_memory_are_read_once_and_can_be_pickled() -> None:
    reads: list[int] = []

    def count(value: int) -> Pair:
        reads.append(value)
        return read(value)

    kept = in_memory([Frame(str(i), "a", partial(count, i)) for i in range(3)])
    assert sorted(reads) == [0, 1, 2]
    assert [frame.read().name for frame in pickle.loads(pickle.dumps(kept))] == ["0", "1", "2"]
    assert [(frame.name, frame.scene) for frame in kept] == [("0", "a"), ("1", "a"), ("2", "a")]
    assert len(reads) == 3


SCENES = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60)


@given(SCENES, st.floats(0.01, 0.99), st.integers(0, 5))
def test_the_parts_of_a_split_make_up_the_whole_and_share_no_scene(
    scenes: list[str], share: float, seed: int
) -> None:
    frames = frames_of(scenes)
    fit, validation = split_frames(frames, share, seed)
    assert validation
    if len(set(scenes)) > 1:
        assert fit
        assert not {frame.scene for frame in fit} & {frame.scene for frame in validation}
    for part in (fit, validation):
        numbers = [int(frame.name) for frame in part]
        assert numbers == sorted(numbers)
    assert sorted(int(f.name) for f in fit + validation) == list(range(len(frames)))
    again = split_frames(frames, share, seed)
    assert [f.name for f in again[1]] == [f.name for f in validation]


@given(st.integers(20, 60), st.floats(0.1, 0.5), st.integers(0, 5))
def test_many_small_scenes_come_close_to_the_share(count: int, share: float, seed: int) -> None:
    frames = frames_of([f"scene {i // 2}" for i in range(2 * count)])
    _, validation = split_frames(frames, share, seed)
    assert abs(len(validation) - share * len(frames)) <= 2.5


def test_a_set_of_one_scene_is_cut_in_time() -> None:
    fit, validation = split_frames(frames_of(["a"] * 10), 0.3, seed=0)
    assert [f.name for f in fit] == list("0123456")
    assert [f.name for f in validation] == list("789")


@pytest.mark.parametrize(("count", "share"), [(0, 0.5), (1, 0.5), (4, 0.0), (4, 1.0)])
def test_what_cannot_be_split_is_refused(count: int, share: float) -> None:
    with pytest.raises(DataError, match=f"{count} frames cannot be split at {share}"):
        split_frames(frames_of(["a"] * count), share, seed=0)


def test_the_hash_of_a_data_list_follows_its_names_and_order() -> None:
    frames = frames_of(["a", "a", "b"])
    assert data_list_hash(frames) == data_list_hash(frames_of(["x", "y", "z"]))
    assert data_list_hash(frames) != data_list_hash(frames[::-1])
    # printf '0\n1\n2' | sha256sum
    digest = "c4276dce1d5952cafea6aebd872c389f0945e4a2400859fa3998138d2e006f34"
    assert data_list_hash(frames) == digest
