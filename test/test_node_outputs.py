"""Each output of the node over DDS against numbers that are worked out here, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import numpy.typing as npt
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_rig import CAMERA, HEIGHT, OWN_DOMAIN, SCALE, SHARED_DOMAIN, WIDTH, Rig, flat
from occupancy_grid import (
    OCCUPIED,
    GroundTruth,
    VoxelGrid,
    distances,
    ray_cast,
    scan_to_world,
    to_world,
)
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.confidence import ConfidenceEstimator
from mono_depth_ros.messages import camera_info_message, depth_to_array, image_message
from mono_depth_ros.sim.bake import solids
from mono_depth_ros.sim.mount import mounted
from mono_depth_ros.sim.plan import plan_room
from mono_depth_ros.sim.renderer import Renderer
from mono_depth_ros.sim.scene import Scene
from mono_depth_ros.sim.trajectory import Trajectory

LENS_HEIGHT, PITCH = 0.6, 10.0
BASELINE = 0.1
TOPICS: dict[str, type] = {
    "depth/image_rect": Image,
    "depth/camera_info": CameraInfo,
    "points": PointCloud2,
    "depth/image_color": Image,
    "image_rect": Image,
    "image_rect/camera_info": CameraInfo,
    "disparity": DisparityImage,
    "right/camera_info": CameraInfo,
    "scan": LaserScan,
    "confidence": Image,
    "points/obstacles": PointCloud2,
    "points/clearing": PointCloud2,
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A node whose messages are checked by rclpy field by field, all of them subscribed to."""
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_PYTHON_CHECK_FIELDS", "1")
        made = Rig(
            folder / "log.txt",
            SHARED_DOMAIN,
            model=networks.red_channel(folder / "red.onnx"),
            max_depth=20.0,
            camera_height=LENS_HEIGHT,
            camera_pitch_deg=PITCH,
            disparity_baseline=BASELINE,
        )
    made.active()
    for topic, kind in TOPICS.items():
        made.hear(kind, topic)
    yield made
    made.close()


def see(rig: Rig, pixels: npt.NDArray[np.uint8], *topics: str, d: list[float] | None = None) -> Any:
    """What the topics say of one image."""

    def send(header: Header) -> None:
        info = camera_info_message(CAMERA, header)
        info.d = d or info.d
        rig.send(image_message(pixels, "rgb8", header), info)

    return rig.answer(send, *topics)


def steps() -> npt.NDArray[np.uint8]:
    """Four walls, each further than the one to its left."""
    pixels = flat(0)
    pixels[..., 0] = np.repeat([50, 100, 150, 250], WIDTH // 4)
    return pixels


def xyz(cloud: PointCloud2) -> npt.NDArray[np.float64]:
    """(N, 3) of any cloud."""
    floats = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    return floats[:, :3].astype(np.float64)


def back_projected(depth: npt.NDArray[np.floating], stride: int = 1) -> npt.NDArray[np.float64]:
    """hxwx3 in the optical frame."""
    v, u = np.mgrid[:HEIGHT:stride, :WIDTH:stride]
    z = depth[::stride, ::stride].astype(np.float64)
    return np.stack([(u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z], -1)


def forward_and_height(
    points: npt.NDArray[np.float64], lens: float = LENS_HEIGHT
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Metres ahead on the map, and above the ground, of (..., 3) points of the pitched camera."""
    c, s = math.cos(math.radians(PITCH)), math.sin(math.radians(PITCH))
    return points[..., 2] * c - points[..., 1] * s, lens - points[..., 2] * s - points[..., 1] * c


def warning(rig: Rig, *words: str) -> None:
    """Waits for a WARN diagnostic with these words while frames go on."""
    rig.peer.heard["/diagnostics"].clear()

    def said() -> bool:
        rig.see(flat(50))
        return any(
            array.status[0].level == DiagnosticStatus.WARN
            and all(word in array.status[0].message for word in words)
            for array in rig.peer.heard["/diagnostics"]
        )

    rig.peer.wait(said, f"warning about {words}", rig.process)


def test_every_output_has_the_stamp_and_the_frame_of_the_image(rig: Rig) -> None:
    answers = dict(zip(TOPICS, see(rig, steps(), *TOPICS), strict=True))
    stamps = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in answers.values()}
    assert len(stamps) == 1 and stamps.pop()[1] == 123456789
    frames = {topic: message.header.frame_id for topic, message in answers.items()}
    assert frames.pop("scan") == "eye_level_frame"
    assert set(frames.values()) == {"eye"}
    image = answers["disparity"].image
    assert image.header == answers["disparity"].header


def test_the_rectified_image_holds_the_pixels_that_depth_belongs_to(rig: Rig) -> None:
    pixels = np.random.default_rng(1).integers(60, 255, (HEIGHT, WIDTH, 3), np.uint8)
    topics = "image_rect", "image_rect/camera_info", "depth/camera_info"
    image, info, depth_info = see(rig, pixels, *topics)
    assert (image.encoding, image.width, image.height) == ("rgb8", WIDTH, HEIGHT)
    received = np.frombuffer(image.data, np.uint8).reshape(pixels.shape)
    np.testing.assert_array_equal(received, pixels)
    assert info == depth_info
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), CAMERA.matrix())
    np.testing.assert_allclose(np.reshape(info.p, (3, 4)), np.c_[CAMERA.matrix(), np.zeros(3)])


def test_a_distorted_image_is_published_without_its_distortion(rig: Rig) -> None:
    d = [-0.3, 0.1, 0.001, -0.002, 0.0]
    pixels = cv2.GaussianBlur(
        np.random.default_rng(2).integers(60, 255, (HEIGHT, WIDTH, 3), np.uint8), (9, 9), 3
    ).astype(np.uint8)
    image, info = see(rig, pixels, "image_rect", "image_rect/camera_info", d=d)
    ideal = cv2.undistort(pixels, CAMERA.matrix(), np.array(d), newCameraMatrix=CAMERA.matrix())
    received = np.frombuffer(image.data, np.uint8).reshape(pixels.shape)
    inner = np.s_[20:-20, 20:-20]
    assert np.abs(received.astype(int) - ideal)[inner].max() <= 2
    assert np.abs(received.astype(int) - pixels)[inner].max() > 20
    assert not any(info.d)


def test_points_outside_the_ranges_and_heights_are_left_out(rig: Rig) -> None:
    limits = {"min_range": 2.3, "max_range": 6.5, "min_height": 0.05, "max_height": 0.9}
    assert rig.set(**{f"cloud__{name}": value for name, value in limits.items()}) == (True, "")
    try:
        depth_image, cloud = see(rig, steps(), "depth/image_rect", "points")
        assert rig.set(camera_height=LENS_HEIGHT + 0.3) == (True, "")
        lifted = see(rig, steps(), "points")
    finally:
        rig.set(
            cloud__min_range=0.0,
            cloud__max_range=1000.0,
            cloud__min_height=-100.0,
            cloud__max_height=100.0,
            camera_height=LENS_HEIGHT,
        )
    points = back_projected(depth_to_array(depth_image))
    away = np.linalg.norm(points, axis=-1)
    for message, lens in ((cloud, LENS_HEIGHT), (lifted, LENS_HEIGHT + 0.3)):
        assert (message.width, message.height, message.is_dense) == (WIDTH, HEIGHT, False)
        _, height = forward_and_height(points, lens)
        margins = [away - 2.3, 6.5 - away, height - 0.05, 0.9 - height]
        inside = np.min(margins, axis=0)
        found = xyz(message).reshape(HEIGHT, WIDTH, 3)
        assert 0.05 < (inside > 0).mean() < 0.6
        assert np.isnan(found[inside < -1e-4]).all()
        np.testing.assert_allclose(
            found[inside > 1e-4], points[inside > 1e-4], rtol=1e-5, atol=1e-6
        )


def test_a_new_stride_takes_effect_on_the_next_frame(rig: Rig) -> None:
    assert rig.set(cloud__stride=5) == (True, "")
    try:
        depth, cloud = see(rig, steps(), "depth/image_rect", "points")
    finally:
        rig.set(cloud__stride=1)
    assert (cloud.width, cloud.height, cloud.row_step) == (64, 48, 64 * 16)
    points = back_projected(depth_to_array(depth), 5)
    np.testing.assert_allclose(xyz(cloud), points.reshape(-1, 3), rtol=1e-5, atol=1e-6)


def test_disparity_and_the_right_camera_give_depth_back(rig: Rig) -> None:
    assert rig.set(max_depth=8.0) == (True, "")
    try:
        message, info, depth_image = see(
            rig, steps(), "disparity", "right/camera_info", "depth/image_rect"
        )
    finally:
        rig.set(max_depth=20.0)
    depth = depth_to_array(depth_image)
    values = np.frombuffer(message.image.data, np.float32).reshape(HEIGHT, WIDTH)
    known = np.isfinite(depth)
    assert 0.6 < known.mean() < 0.9
    np.testing.assert_allclose(260 * BASELINE / values[known], depth[known], rtol=1e-5)
    assert (values[~known] < message.min_disparity).all()
    assert message.min_disparity == pytest.approx(260 * BASELINE / 8.0)
    assert (message.f, message.t) == pytest.approx((260, BASELINE))
    assert list(info.p) == pytest.approx(
        [260, 0, 159.5, -260 * BASELINE, 0, 260, 119.5, 0, 0, 0, 1, 0]
    )
    assert list(info.k) == [260, 0, 159.5, 0, 260, 119.5, 0, 0, 1]


def test_a_scan_of_a_wall_is_what_the_pitched_plane_says(rig: Rig) -> None:
    scan = see(rig, flat(50), "scan")
    z = 50 * networks.RED_SCALE * SCALE
    # The wall is square to the optical axis, so it leans: its foot is nearer. The lowest that
    # counts is at the lower end of the band, 0.1 m above the ground.
    pitch = math.radians(PITCH)
    ahead = (z + (0.1 - LENS_HEIGHT) * math.sin(pitch)) / math.cos(pitch)
    angles = scan.angle_min + np.arange(len(scan.ranges)) * scan.angle_increment
    assert angles[-1] == pytest.approx(scan.angle_max, abs=1e-5)
    assert scan.angle_min == pytest.approx(-scan.angle_max, abs=0.01)
    middle = np.abs(angles) < 0.5
    assert middle.sum() > 150
    np.testing.assert_allclose(
        np.array(scan.ranges)[middle], ahead / np.cos(angles[middle]), atol=0.012
    )
    assert (scan.range_min, scan.range_max) == pytest.approx((0.1, 20.0))
    assert scan.header.frame_id == "eye_level_frame"


def test_left_is_at_positive_angles_of_the_scan(rig: Rig) -> None:
    pixels = flat(150)
    pixels[:, : WIDTH // 4, 0] = 50
    scan = see(rig, pixels, "scan")
    ranges = np.array(scan.ranges)
    angles = scan.angle_min + np.arange(ranges.size) * scan.angle_increment
    left, right = (angles > 0.4) & (angles < 0.5), (angles > -0.5) & (angles < 0.15)
    assert ranges[left].max() < 3 < ranges[right].min()


def test_where_nothing_is_in_range_the_scan_says_so(rig: Rig) -> None:
    assert rig.set(max_depth=8.0) == (True, "")
    try:
        scan = see(rig, flat(250), "scan")
    finally:
        rig.set(max_depth=20.0)
    ranges = np.array(scan.ranges)
    quarter = ranges.size // 4
    # At the sides, a pitched camera does not see the band that far.
    assert np.isposinf(ranges[quarter:-quarter]).all() and not np.isfinite(ranges).any()
    assert scan.range_max == 8.0


def test_confidence_is_between_0_and_1_and_only_where_there_is_depth(rig: Rig) -> None:
    assert rig.set(max_depth=8.0) == (True, "")
    try:
        message, depth_image = see(rig, steps(), "confidence", "depth/image_rect")
    finally:
        rig.set(max_depth=20.0)
    assert message.encoding == "32FC1"
    depth, confidence = depth_to_array(depth_image), depth_to_array(message)
    np.testing.assert_array_equal(np.isnan(confidence), ~np.isfinite(depth))
    known = confidence[np.isfinite(depth)]
    assert ((known > 0) & (known < 1)).all() and known.std() > 0.01
    np.testing.assert_allclose(confidence, ConfidenceEstimator(CAMERA)(depth, steps()), rtol=1e-4)


def test_obstacles_are_the_points_in_the_band_and_nothing_else(rig: Rig) -> None:
    names = "points/obstacles", "depth/image_rect"
    assert rig.set(obstacles__stride=2, obstacles__max_range=5.0) == (True, "")
    try:
        cloud, depth_image = see(rig, steps(), *names)
    finally:
        rig.set(obstacles__stride=4, obstacles__max_range=4.0)
    assert (cloud.height, cloud.is_dense, cloud.point_step) == (1, True, 12)
    points = back_projected(depth_to_array(depth_image), 2).reshape(-1, 3)
    forward, height = forward_and_height(points)
    away = np.hypot(forward, points[:, 0])
    # No pixel is so near a limit that rounding decides.
    margin = np.min([height - 0.1, 2.0 - height, 5.0 - away], axis=0)
    assert np.abs(margin).min() > 1e-6 and (margin > 0).sum() > 100
    np.testing.assert_allclose(xyz(cloud), points[margin > 0], rtol=1e-5, atol=1e-6)


def test_clearing_has_an_end_for_every_ray_that_can_clear(rig: Rig) -> None:
    assert rig.set(max_depth=8.0) == (True, "")
    try:
        cloud, depth_image = see(rig, steps(), "points/clearing", "depth/image_rect")
    finally:
        rig.set(max_depth=20.0)
    assert (cloud.height, cloud.is_dense, cloud.point_step) == (1, True, 12)
    depth = depth_to_array(depth_image)
    rays = back_projected(np.ones((HEIGHT, WIDTH)), 4).reshape(-1, 3)
    forward, height = forward_and_height(rays)
    rise = height - LENS_HEIGHT
    ends = []
    for i, z in enumerate(depth[::4, ::4].ravel().tolist()):
        ray, ahead, up = rays[i], float(forward[i]), float(rise[i])
        limits = [z, 4.0 / math.hypot(ahead, ray[0])]
        limits.append((2.0 - LENS_HEIGHT) / up if up > 0 else -LENS_HEIGHT / up)
        ends.append(min(limits) * ray)
    assert np.isposinf(depth[::4, ::4]).any()
    assert np.isfinite(xyz(cloud)).all()
    np.testing.assert_allclose(xyz(cloud), ends, rtol=1e-4, atol=1e-5)


def test_without_a_height_there_is_a_remedy_and_the_other_outputs(rig: Rig) -> None:
    assert rig.set(camera_height=0.0) == (True, "")
    try:
        warning(rig, "camera_height", "base_frame")
        held = ("scan", "points/obstacles", "points/clearing")
        counts = [len(rig.heard(topic)) for topic in held]
        others = [topic for topic in TOPICS if topic not in held]
        see(rig, flat(50), *others)
        assert [len(rig.heard(topic)) for topic in held] == counts
    finally:
        rig.set(camera_height=LENS_HEIGHT)
    see(rig, flat(50), *TOPICS)


def test_a_band_that_no_pixel_sees_stops_the_scan_only(rig: Rig) -> None:
    assert rig.set(scan__min_height=90.0, scan__max_height=95.0) == (True, "")
    try:
        warning(rig, "scan", "90.0 to 95.0", "camera_pitch_deg")
        see(rig, flat(50), *(topic for topic in TOPICS if topic != "scan"))
    finally:
        rig.set(scan__min_height=0.1, scan__max_height=1.0)
    see(rig, flat(50), *TOPICS)


def test_without_tf_a_base_frame_is_told_to_need_it(rig: Rig) -> None:
    assert rig.set(base_frame="base_link") == (True, "")
    try:
        warning(rig, "base_link", "camera_height")
        see(rig, flat(50), "depth/image_rect", "points")
    finally:
        rig.set(base_frame="")


def test_every_output_is_made_as_before_after_all_that(rig: Rig) -> None:
    see(rig, steps(), *TOPICS)
    assert "AssertionError" not in rig.process.output()


# The virtual room, whose exact depth goes in as colours

LOW, HIGH, RANGE, CELL = 0.1, 1.2, 3.5, 0.05
ROOM_CAMERA = CameraModel.from_hfov(WIDTH, HEIGHT, 70)


@pytest.mark.slow
def test_obstacles_of_the_virtual_room_are_on_the_map_within_10_cm(tmp_path: Path) -> None:
    plan = plan_room(7)
    scene, path = Scene(solids(plan).compile()), Trajectory(plan)
    height, pitch = 0.8, 12.0
    size = (ROOM_CAMERA.height, ROOM_CAMERA.width)
    rig = Rig(
        tmp_path / "log.txt",
        OWN_DOMAIN,
        model=networks.two_channels(tmp_path / "exact.onnx", size, ROOM_CAMERA.focal),
        max_depth=10.0,
        camera_height=height,
        camera_pitch_deg=pitch,
        obstacles__min_height=LOW,
        obstacles__max_height=HIGH,
        obstacles__max_range=RANGE,
        obstacles__stride=1,
        scan__min_height=LOW,
        scan__max_height=HIGH,
    )
    truth = GroundTruth.of(plan, LOW, HIGH)
    high = [*(plan.size[:2] + 0.5), HIGH + CELL]
    clouds = VoxelGrid([-0.5, -0.5, 0], high, [CELL] * 3)
    x, y = (rays[4::8].astype(np.float64) for rays in ROOM_CAMERA.rays())
    rays = np.stack([*(part.ravel() for part in np.meshgrid(x, y)), np.ones(x.size * y.size)], 1)
    seen = []
    try:
        rig.active()
        topics = ("depth/image_rect", "points/obstacles", "points/clearing", "scan")
        for topic in topics:
            rig.hear(TOPICS[topic], topic)
        with Renderer(scene, ROOM_CAMERA) as renderer:
            for time in np.linspace(0, path.period, 6, endpoint=False):
                pose = mounted(path.pose(float(time)), height, pitch)
                exact = renderer.depth(pose)
                pixels = networks.to_two_channels(exact)

                def send(header: Header, pixels: npt.NDArray[np.uint8] = pixels) -> None:
                    info = camera_info_message(ROOM_CAMERA, header)
                    rig.send(image_message(pixels, "rgb8", header), info)

                depth, obstacles, clearing, scan = rig.answer(send, *topics)
                error = np.abs(depth_to_array(depth) - exact)
                assert np.median(error) < 0.001
                marking = to_world(xyz(obstacles), pose)
                clouds.integrate(pose.position, marking, to_world(xyz(clearing), pose), 2 * CELL)
                flat_grid = VoxelGrid([-0.5, -0.5, 0], [*high[:2], 2], [CELL, CELL, 2])
                hits, free = scan_to_world(
                    np.array(scan.ranges, np.float64),
                    scan.angle_min,
                    scan.angle_increment,
                    scan.range_max,
                    pose,
                )
                flat_grid.integrate(pose.position, hits, free, 0.0)
                marked = flat_grid.centres(flat_grid.occupied())
                assert len(marked) > 20
                assert truth.at(marked).max() <= 0.10
                there = to_world(rays * ray_cast(scene, pose, rays)[:, None], pose)
                level = np.linalg.norm((there - pose.position)[:, :2], axis=1)
                inside = (there[:, 2] > LOW + 0.02) & (there[:, 2] < HIGH - 0.02)
                seen.append(there[inside & (level < RANGE - 0.05), :2])
    finally:
        rig.close()
    marked = clouds.centres(clouds.occupied())
    assert (clouds.cells == OCCUPIED).any()
    assert truth.at(marked).max() <= 0.10
    obstacles_in_view = np.concatenate(seen)
    assert len(obstacles_in_view) > 500
    assert distances(obstacles_in_view, marked).max() <= 0.10
