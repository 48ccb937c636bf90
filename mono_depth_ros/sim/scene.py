"""What can be rendered: furnished rooms from a seed, and a plain wall at a known distance."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mono_depth_ros.sim import texture
from mono_depth_ros.sim.bake import add_material, bake, quaternion, unlit
from mono_depth_ros.sim.plan import Plan, plan_room


@dataclass(frozen=True, eq=False)
class Scene:
    """Something to render.

    Attributes:
        model: compiled, static, unlit: colours are in its textures.
    """

    model: mujoco.MjModel


@dataclass(frozen=True, eq=False)
class Room(Scene):
    """A furnished room.

    Attributes:
        plan: its size, its furniture, and where a camera may go.
    """

    plan: Plan


def build_room(seed: int) -> Room:
    """The furnished room of a seed; takes some seconds, most of them for its light."""
    plan = plan_room(seed)
    return Room(bake(plan), plan)


def build_wall(distance_m: float, seed: int = 0) -> Scene:
    """A textured wall that fills the view of a camera at the origin that looks along +x.

    Args:
        distance_m: depth of every pixel, for lenses up to 150 degrees wide.
        seed: of the texture.

    Raises:
        ValueError: the distance is not between 0.1 and 50 m.
    """
    if not 0.1 <= distance_m <= 50:
        raise ValueError(f"wall distance {distance_m} m is not between 0.1 and 50 m")
    spec = unlit()
    half = 4 * distance_m
    tile = texture.srgb(texture.brick(np.random.default_rng(seed), (150, 84, 66)).tile)
    add_material(spec, "wall", tile, repeat=2 * half / 0.9)
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[half, half, 1],
        pos=[distance_m, 0, 0],
        quat=quaternion(np.column_stack([(0, -1, 0), (0, 0, 1), (-1, 0, 0)])),
        material="wall",
        contype=0,
        conaffinity=0,
    )
    return Scene(spec.compile())
