"""MP4 files read back, and what happens when they cannot be written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mono_depth_ros.mp4 import mp4_writer

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("fps", [1, 7.5, 30000 / 1001, 60])
def test_frames_and_rate_come_back(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "clip.mp4"
    with mp4_writer(path, fps, (64, 48)) as write:
        for level in range(0, 250, 50):
            write(np.full((48, 64, 3), level, np.uint8))
        assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-3)
    for level in range(0, 250, 50):
        ok, frame = capture.read()
        assert ok
        np.testing.assert_allclose(frame.astype(int), level, atol=8)
    assert not capture.read()[0]


def test_a_failed_block_keeps_the_old_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    with contextlib.suppress(RuntimeError), mp4_writer(path, 10, (64, 48)) as write:
        write(np.zeros((48, 64, 3), np.uint8))
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="not 64x48"),
        mp4_writer(tmp_path / "clip.mp4", 10, (64, 48)) as write,
    ):
        write(np.zeros((50, 64, 3), np.uint8))


def test_a_disk_that_fills_up_is_noticed(tmp_path: Path) -> None:
    script = """
import resource, sys
import numpy as np
from pathlib import Path
from mono_depth_ros.mp4 import VideoWriteError, mp4_writer
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
noise = np.random.default_rng(0)
try:
    with mp4_writer(Path(sys.argv[1]), 10, (320, 240)) as write:
        for _ in range(30):
            write(noise.integers(0, 256, (240, 320, 3), np.uint8))
except VideoWriteError as error:
    sys.exit(f"refused: {error}")
"""
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "clip.mp4"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert "clip.mp4: 0 of 30 frames written; is the disk full?" in result.stderr
    assert list(tmp_path.iterdir()) == []
