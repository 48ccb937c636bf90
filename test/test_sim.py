"""The simulator against geometry that is known without it."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.sim.bake import solids
from mono_depth_ros.sim.plan import CLEARANCE_M, plan_room
from mono_depth_ros.sim.pose import heading
from mono_depth_ros.sim.renderer import Renderer
from mono_depth_ros.sim.scene import Room, Scene, build_room, build_wall
from mono_depth_ros.sim.trajectory import Trajectory

AHEAD = heading((0.0, 0.0, 0.0), 0.0)
CAMERAS = [
    CameraModel.from_hfov(320, 240, 100),
    CameraModel(320, 240, 525.0, 480.0, 190.3, 88.8),
    CameraModel(201, 333, 250.0, 410.0, 60.25, 200.5),
]


@pytest.fixture(scope="module")
def room() -> Room:
    return build_room(7)


def spots(points: list[tuple[float, float, float]], radius: float) -> Scene:
    """Glowing balls in the dark."""
    spec = mujoco.MjSpec()
    spec.visual.headlight.active = 0
    spec.visual.quality.offsamples = 0
    spec.visual.quality.numslices = spec.visual.quality.numstacks = 64
    spec.add_material(name="glow", emission=1, rgba=[1, 1, 1, 1])
    for point in points:
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[radius, 0, 0], pos=point, material="glow"
        )
    return Scene(spec.compile())


def test_rooms_compile_for_many_seeds() -> None:
    for seed in range(100, 106):
        assert solids(plan_room(seed)).compile().ngeom > 60


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("distance", [0.3, 2.0, 10.0])
def test_wall_depth_is_exact(camera: CameraModel, distance: float) -> None:
    with Renderer(build_wall(distance), camera) as renderer:
        depth, rgb = renderer.depth(AHEAD), renderer.rgb(AHEAD)
    assert depth.shape == (camera.height, camera.width) and depth.dtype == np.float32
    assert rgb.shape == (camera.height, camera.width, 3) and rgb.dtype == np.uint8
    np.testing.assert_allclose(depth, distance, atol=0.002)
    assert rgb.std() > 10


@pytest.mark.parametrize("camera", CAMERAS)
def test_intrinsics_are_honoured(camera: CameraModel) -> None:
    """Small balls appear where the pinhole model says, in colour and in depth."""
    pixels = [(camera.width * u, camera.height * v) for u in (0.2, 0.8) for v in (0.15, 0.85)]
    pixels.append((camera.cx, camera.cy))
    points = []
    for k, (u, v) in enumerate(pixels):
        z = 2.0 + 0.5 * k
        # World axes of a camera that looks along +x: x forward, y left, z up.
        points.append((z, -(u - camera.cx) / camera.fx * z, -(v - camera.cy) / camera.fy * z))
    with Renderer(spots(points, 0.03), camera) as renderer:
        rgb, depth = renderer.rgb(AHEAD), renderer.depth(AHEAD)
    for k, (u, v) in enumerate(pixels):
        x0, y0 = int(u) - 12, int(v) - 12
        near = np.s_[max(y0, 0) : y0 + 25, max(x0, 0) : x0 + 25]
        for weight in (rgb[..., 0].astype(float), np.isfinite(depth).astype(float)):
            # Balls this small have no visible perspective distortion.
            rows, columns = np.nonzero(weight[near])
            found = np.average(
                np.stack([columns + max(x0, 0), rows + max(y0, 0)], 1),
                axis=0,
                weights=weight[near][rows, columns],
            )
            np.testing.assert_allclose(found, (u, v), atol=0.6)
        nearest = depth[near][np.isfinite(depth[near])].min()
        assert nearest == pytest.approx(2.0 + 0.5 * k - 0.03, abs=0.015)


def test_room_depth_agrees_with_ray_casting(room: Room) -> None:
    """mj_ray intersects the same solids analytically, without OpenGL."""
    camera = CameraModel(320, 240, 230.0, 240.0, 150.0, 130.0)
    path = Trajectory(room.plan)
    data = mujoco.MjData(room.model)
    mujoco.mj_forward(room.model, data)
    x, y = camera.rays()
    geom = np.empty(1, np.int32)
    with Renderer(room, camera) as renderer:
        for time in np.linspace(0, path.period, 5)[:-1]:
            pose = path.pose(time)
            depth = renderer.depth(pose)
            # Where a neighbouring pixel shows another surface, the ray may too.
            smooth = depth * 0.01 > cv2.morphologyEx(depth, cv2.MORPH_GRADIENT, np.ones((3, 3)))
            smooth[[0, -1]] = smooth[:, [0, -1]] = False
            assert smooth.mean() > 0.5
            checked = 0
            for v, u in np.argwhere(smooth)[::67]:
                ray = pose.rotation @ (x[u], y[v], 1.0)  # of unit Z, so that its length is depth
                truth = mujoco.mj_ray(room.model, data, pose.position, ray, None, True, -1, geom)
                kind = int(room.model.geom_type[geom[0]])
                if kind in (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE):
                    assert depth[v, u] == pytest.approx(truth, abs=0.005), (u, v)
                    checked += 1
                else:  # drawn as facets
                    assert depth[v, u] == pytest.approx(truth, abs=0.02), (u, v)
            assert checked > 400


def test_room_floor_and_height(room: Room) -> None:
    """Looking straight down, the floor is as far as the camera is high."""
    camera = CameraModel.from_hfov(64, 48, 20)
    with Renderer(room, camera) as renderer:
        x, y = room.plan.walk.centre
        floor = renderer.depth(heading((x, y, 1.3), 0.0, -np.pi / 2))
        ceiling = renderer.depth(heading((x, y, 1.3), 0.0, np.pi / 2))
    assert floor.min() > 1.285 and floor.max() < 1.302  # a rug is 1 cm thick
    assert ceiling.max() < room.plan.size[2] - 1.3 + 0.002


def test_out_is_filled() -> None:
    camera = CameraModel.from_hfov(64, 48, 60)
    rgb, depth = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.float32)
    with Renderer(build_wall(1.0), camera) as renderer:
        assert renderer.rgb(AHEAD, out=rgb) is rgb and rgb.any()
        assert renderer.depth(AHEAD, out=depth) is depth and depth.all()
        np.testing.assert_array_equal(renderer.rgb(AHEAD), rgb)
        away = heading((0.0, 0.0, 0.0), np.pi)
        assert np.isposinf(renderer.depth(away)).all()
    with pytest.raises(RuntimeError, match="closed"):
        renderer.rgb(AHEAD)
    renderer.close()


def test_two_renderers_do_not_disturb_each_other() -> None:
    camera = CameraModel.from_hfov(64, 48, 60)
    with Renderer(build_wall(1.0), camera) as near, Renderer(build_wall(3.0), camera) as far:
        alone = [near.rgb(AHEAD), far.rgb(AHEAD)]
        assert (alone[0] != alone[1]).any()
        np.testing.assert_array_equal(near.rgb(heading((0.0, 0.0, 0.0), 0.0)), alone[0])
        for renderer, distance in ((near, 1.0), (far, 3.0), (near, 1.0)):
            np.testing.assert_allclose(renderer.depth(AHEAD), distance, atol=0.002)


def test_depth_is_the_same_with_and_without_colour(room: Room) -> None:
    camera = CameraModel.from_hfov(160, 120, 70)
    first, second = (Trajectory(room.plan).pose(t) for t in (0.0, 5.0))
    with Renderer(room, camera) as renderer:
        alone = renderer.depth(first)
        assert renderer.rgb(first).any()
        np.testing.assert_array_equal(renderer.depth(first), alone)
        assert np.abs(renderer.depth(second) - alone).mean() > 0.01


def test_seeds(room: Room) -> None:
    camera = CameraModel.from_hfov(160, 120, 70)
    images = []
    for each in (room, build_room(7), build_room(8)):
        with Renderer(each, camera) as renderer:
            images.append(renderer.rgb(Trajectory(each.plan).pose(1.0)))
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0].astype(int) - images[2]).mean() > 5


def test_room_is_exposed_like_a_photograph(room: Room) -> None:
    camera = CameraModel.from_hfov(160, 120, 70)
    path = Trajectory(room.plan)
    with Renderer(room, camera) as renderer:
        views = np.stack([renderer.rgb(path.pose(t)) for t in np.linspace(0, path.period, 9)])
    assert 60 < views.mean() < 190
    assert (views.max(-1) == 255).mean() < 0.1 and (views.max(-1) < 8).mean() < 0.1
    assert all(view.std() > 15 for view in views)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 1000))
def test_plans_and_paths(seed: int, path_seed: int) -> None:
    """Closed, at most 0.5 m/s, clear of everything, and smooth."""
    plan = plan_room(seed)
    assert len(plan.obstacles) >= 3
    path = Trajectory(plan, path_seed)
    times = np.linspace(0, path.period, 400)
    poses = [path.pose(float(t)) for t in times]
    positions = np.array([pose.position for pose in poses])
    np.testing.assert_allclose(positions[0], positions[-1], atol=1e-9)
    np.testing.assert_allclose(poses[0].rotation, poses[-1].rotation, atol=1e-9)
    assert path.pose(0.3).position == pytest.approx(path.pose(0.3 + path.period).position)

    speed = np.linalg.norm(np.diff(positions, axis=0), axis=1) / np.diff(times)
    assert speed.max() <= 0.5
    assert (positions[:, 2] >= 0.5).all() and (positions[:, 2] <= 1.5).all()
    gaze = np.array([pose.rotation[:, 2] for pose in poses])
    turn = np.linalg.norm(np.diff(gaze, axis=0), axis=1) / np.diff(times)
    assert turn.max() < np.radians(25)
    assert np.abs(gaze[:, 2]).max() < np.sin(np.radians(20))
    for pose in poses[::50]:
        np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose.rotation) == pytest.approx(1)

    low, high = plan.obstacles[:, 0], plan.obstacles[:, 1]
    away = np.maximum(low - positions[:, None], positions[:, None] - high).clip(0)
    assert np.linalg.norm(away, axis=-1).min() >= CLEARANCE_M
    assert (positions[:, :2] >= CLEARANCE_M).all()
    assert (positions[:, :2] <= plan.size[:2] - CLEARANCE_M).all()
    # Level gaze to the room's walls: never straight into one close by.
    level = gaze[:, :2] / np.linalg.norm(gaze[:, :2], axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        ends = np.where(level > 0, plan.size[:2] - positions[:, :2], -positions[:, :2]) / level
    assert ends.min() > 1.0


def test_gl_failure_names_the_packages() -> None:
    """Here the library is there but finds no driver."""
    program = (
        "from mono_depth_ros.camera import CameraModel\n"
        "from mono_depth_ros.sim.renderer import Renderer\n"
        "from mono_depth_ros.sim.scene import build_wall\n"
        "try: Renderer(build_wall(1.0), CameraModel.from_hfov(64, 48, 60))\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout.count("\n") == 1 and "libegl1 libgl1-mesa-dri" in done.stdout, done.stderr


def test_egl_is_the_default_whatever_was_imported_first() -> None:
    program = (
        "import mujoco\n"
        "from mono_depth_ros.camera import CameraModel\n"
        "from mono_depth_ros.sim.renderer import Renderer\n"
        "from mono_depth_ros.sim.scene import build_wall\n"
        "Renderer(build_wall(1.0), CameraModel.from_hfov(64, 48, 60)).close()\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    subprocess.run([sys.executable, "-c", program], env=clean, timeout=30, check=True)
