"""Renders RGB-D pairs from procedural rooms: one folder a room, each drawn from its own seed.

Rooms differ in size, furniture, textures and light; the lens and the camera's height, pitch and
roll are drawn too, from a vacuum cleaner's view to a person's, and a share of the frames looks at
a thing from less than a metre. Depth is exact. Folders that are complete are left alone, so the
same command continues an interrupted run. With an NVIDIA GPU MuJoCo renders on it (EGL).
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.sim.plan import Plan
from mono_depth_ros.sim.pose import Pose, heading
from mono_depth_ros.sim.renderer import Renderer
from mono_depth_ros.sim.scene import build_room
from training.data.folder import write_pair, write_settings

# The demo and the tests look at rooms of small seeds; training never sees those.
FIRST_SEED = 10_000
HFOV_DEG = (45.0, 90.0)
CLEARANCE_M = 0.2  # between the lens and the box around a piece of furniture, or a wall
CLOSE_UP_SHARE = 0.3
CLOSE_UP_M = (0.3, 1.2)
DEPTH_SCALE = 1e-3
NEAREST_M = 0.15
ATTEMPTS = 40  # rejected views per frame before a room is given up

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """What every room is rendered with.

    Attributes:
        out: folder of the rooms' folders.
        frames: per room.
        width, height: pixels.
    """

    out: Path
    frames: int
    width: int
    height: int


def draw_lens(rng: np.random.Generator, width: int, height: int) -> CameraModel:
    """A pinhole camera with square pixels, a centred axis, and a field of view from `HFOV_DEG`."""
    focal = width / 2 / math.tan(math.radians(rng.uniform(*HFOV_DEG)) / 2)
    return CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def _is_free(plan: Plan, position: Vector) -> bool:
    inside = (position > CLEARANCE_M).all() and (position < plan.size - CLEARANCE_M).all()
    low, high = plan.obstacles[:, 0] - CLEARANCE_M, plan.obstacles[:, 1] + CLEARANCE_M
    return bool(inside and not ((position > low) & (position < high)).all(1).any())


def _rolled(pose: Pose, roll: float) -> Pose:
    c, s = math.cos(roll), math.sin(roll)
    return Pose(pose.position, pose.rotation @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]))


def draw_pose(plan: Plan, rng: np.random.Generator) -> Pose | None:
    """A random view of a room, or None where the camera would stand in something."""
    roll = rng.normal(0, math.radians(3))
    if len(plan.obstacles) and rng.random() < CLOSE_UP_SHARE:
        low, high = plan.obstacles[rng.integers(len(plan.obstacles))]
        target = rng.uniform(low, high)
        yaw, pitch = rng.uniform(-math.pi, math.pi), rng.uniform(math.radians(-60), 0.2)
        forward = heading(target, yaw, pitch).rotation[:, 2]
        # From the target outwards through its box, then on to the distance drawn.
        with np.errstate(divide="ignore"):
            exits = np.where(forward < 0, high - target, target - low) / np.abs(forward)
        position = target - forward * (exits.min() + rng.uniform(*CLOSE_UP_M))
    else:
        height = rng.choice([rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.2), rng.uniform(1.2, 1.8)])
        position = np.array([*rng.uniform(0, plan.size[:2]), height])
        yaw = rng.uniform(-math.pi, math.pi)
        # High cameras look down on things, low ones at the horizon.
        pitch = rng.normal(math.radians(-12) * (height - 0.3), math.radians(12))
    return _rolled(heading(position, yaw, pitch), roll) if _is_free(plan, position) else None


def is_informative(image: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32]) -> bool:
    """Whether a view shows more than one flat patch, and nothing touches the lens."""
    if np.quantile(depth, 0.01) < NEAREST_M or np.median(depth) < 2 * NEAREST_M:
        return False
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return bool(grey.std() > 12 and np.quantile(depth, 0.95) > 1.15 * np.quantile(depth, 0.05))


def render_room(seed: int, job: Job) -> bool:
    """Writes the folder of one room; False where it was there already.

    Raises:
        ValueError: no informative view was found in the room.
        OSError: the folder cannot be written to.
        RuntimeError: OpenGL cannot be loaded.
    """
    folder = job.out / f"room-{seed:06d}"
    settings = folder / "dataset.yaml"
    if settings.exists():
        return False
    rng = np.random.default_rng((seed, 1))
    room = build_room(seed)
    camera = draw_lens(rng, job.width, job.height)
    with Renderer(room, camera) as renderer:
        written, attempts = 0, 0
        while written < job.frames:
            attempts += 1
            if attempts > ATTEMPTS * job.frames:
                raise ValueError(
                    f"{folder}: room {seed} has no free view; try another --first-seed"
                )
            pose = draw_pose(room.plan, rng)
            if pose is None:
                continue
            image, depth = renderer.rgb(pose), renderer.depth(pose)
            if is_informative(image, depth):
                write_pair(folder, f"{written:04d}", image, depth, DEPTH_SCALE)
                written += 1
    # Last, because it is what marks the folder as complete.
    write_settings(folder, DEPTH_SCALE, camera, source=f"procedural room, seed {seed}")
    return True


def synthesize(job: Job, seeds: range, workers: int) -> int:
    """Renders the rooms of `seeds` on `workers` processes; returns how many were new.

    Raises:
        ValueError, OSError, RuntimeError: as `render_room`.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    # A GL context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            futures = [pool.submit(partial(render_room, job=job), seed) for seed in seeds]
            done = tqdm(as_completed(futures), total=len(futures), desc="rooms", unit="room")
            return sum(future.result() for future in done)
        except BrokenProcessPool:
            raise RuntimeError(
                "a rendering process died; run the same command again to continue"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.synthesize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m training.synthesize --out data/synthetic --rooms 2000\n"
        "Run the same command again to continue after an interruption.",
    )
    parser.add_argument("--out", required=True, type=Path, help="one folder a room goes here")
    parser.add_argument("--rooms", type=int, default=1000, help="distinct rooms (default: 1000)")
    parser.add_argument("--frames", type=int, default=24, help="views of each (default: 24)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the first room")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    job = Job(args.out, args.frames, *args.size)
    seeds = range(args.first_seed, args.first_seed + args.rooms)
    try:
        new = synthesize(job, seeds, args.workers)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"training.synthesize: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {new} new rooms, {len(seeds) - new} were there; {args.frames} pairs each")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
