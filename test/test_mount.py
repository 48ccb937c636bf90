"""Where a robot's frames are, against the pose that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mono_depth_ros.sim.mount import mounted, robot_frames
from mono_depth_ros.sim.plan import plan_room
from mono_depth_ros.sim.pose import Pose, heading
from mono_depth_ros.sim.trajectory import Trajectory

metres = st.floats(-20, 20)
POSES = st.builds(
    heading, st.tuples(metres, metres, metres), st.floats(-7, 7), st.floats(-1.5, 1.5)
)


def rotation(w: float, x: float, y: float, z: float) -> np.ndarray:
    """A quaternion applied to the three axes, by the definition q v q*."""
    columns = []
    for axis in np.eye(3):
        u = np.array([x, y, z])
        turned = 2 * (u @ axis) * u + (w * w - u @ u) * axis + 2 * w * np.cross(u, axis)
        columns.append(turned)
    return np.column_stack(columns)


@given(POSES)
def test_the_frames_one_after_the_other_are_the_pose(pose: Pose) -> None:
    base, camera = robot_frames(pose)
    np.testing.assert_allclose(base.rotation @ camera.rotation, pose.rotation, atol=1e-9)
    position = base.translation + base.rotation @ camera.translation
    np.testing.assert_allclose(position, pose.position, atol=1e-9)


@given(POSES)
def test_the_base_is_level_on_the_floor_and_faces_as_the_camera(pose: Pose) -> None:
    base, camera = robot_frames(pose)
    assert base.translation[2] == 0
    np.testing.assert_allclose(base.rotation[:, 2], (0, 0, 1))
    np.testing.assert_allclose(np.cross(*base.rotation.T[:2]), (0, 0, 1), atol=1e-9)
    # Seen from the base, the camera is straight above and its axis points ahead, not aside.
    np.testing.assert_allclose(camera.translation[:2], 0)
    assert camera.rotation[0, 2] > 0 and abs(camera.rotation[1, 2]) < 1e-9


def test_a_level_camera_that_looks_along_y() -> None:
    base, camera = robot_frames(heading((1.0, 2.0, 0.5), np.pi / 2))
    np.testing.assert_allclose(base.translation, (1, 2, 0))
    np.testing.assert_allclose(base.rotation @ (1, 0, 0), (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(camera.translation, (0, 0, 0.5))
    # REP 103: the optical frame has x right, y down, z forward.
    np.testing.assert_allclose(camera.rotation, [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)


@given(POSES, st.floats(0.1, 3), st.floats(-80, 80))
def test_a_mounted_camera_keeps_its_spot_and_heading(
    pose: Pose, height: float, pitch: float
) -> None:
    found = mounted(pose, height, pitch)
    np.testing.assert_allclose(found.position, (*pose.position[:2], height))
    ahead, before = found.rotation[:2, 2], pose.rotation[:2, 2]
    unit = before / np.linalg.norm(before)
    np.testing.assert_allclose(ahead, unit * np.cos(np.deg2rad(pitch)), atol=1e-9)
    # Positive looks down, and the horizon stays level.
    assert found.rotation[2, 2] == pytest.approx(-np.sin(np.deg2rad(pitch)))
    assert found.rotation[2, 0] == pytest.approx(0)


def test_a_room_s_walk_can_be_driven() -> None:
    path = Trajectory(plan_room(3))
    poses = [mounted(path.pose(t), 0.4, 10.0) for t in np.linspace(0, path.period, 50)]
    assert {round(float(pose.position[2]), 9) for pose in poses} == {0.4}
    np.testing.assert_allclose(poses[0].rotation, poses[-1].rotation, atol=1e-9)


def test_transform_messages_say_the_same() -> None:
    pytest.importorskip("geometry_msgs.msg", reason="ROS is not installed")
    from builtin_interfaces.msg import Time
    from std_msgs.msg import Header

    from mono_depth_ros.virtual_camera import transform_messages

    pose = heading((1.0, -2.0, 0.7), 2.5, -0.3)
    header = Header(stamp=Time(sec=3, nanosec=4), frame_id="eye")
    messages = transform_messages(pose, header)
    assert [(m.header.frame_id, m.child_frame_id) for m in messages] == [
        ("odom", "base_footprint"),
        ("base_footprint", "eye"),
    ]
    turned, moved = np.eye(3), np.zeros(3)
    for message in messages:
        assert message.header.stamp == header.stamp
        to, q = message.transform.translation, message.transform.rotation
        assert q.w**2 + q.x**2 + q.y**2 + q.z**2 == pytest.approx(1)
        moved = moved + turned @ (to.x, to.y, to.z)
        turned = turned @ rotation(q.w, q.x, q.y, q.z)
    np.testing.assert_allclose(moved, pose.position, atol=1e-12)
    np.testing.assert_allclose(turned, pose.rotation, atol=1e-12)


@pytest.mark.parametrize(("count", "played"), [(1, "0000"), (2, "010101"), (4, "01232101232")])
def test_frames_are_played_to_and_fro(count: int, played: str) -> None:
    pytest.importorskip("rclpy", reason="ROS is not installed")
    from mono_depth_ros.virtual_camera import to_and_fro

    assert [to_and_fro(tick, count) for tick in range(len(played))] == [int(c) for c in played]
