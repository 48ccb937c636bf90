"""The plan of a furnished room, drawn from a seed: what stands where, and what shines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mono_depth_ros.sim import furniture, texture
from mono_depth_ros.sim.furniture import Materials
from mono_depth_ros.sim.light import Light
from mono_depth_ros.sim.part import Part, box, cylinder
from mono_depth_ros.sim.texture import RGB, Surface, plain

Array = npt.NDArray[np.float64]

CLEARANCE_M = 0.6  # between the camera and everything else, all along its path


@dataclass(frozen=True, eq=False)
class Walk:
    """The ellipse on the floor that is kept free for the camera.

    Attributes:
        centre: (2,) metres.
        radii: (2,) metres along x and y.
    """

    centre: Array
    radii: Array


@dataclass(frozen=True, eq=False)
class Wall:
    """A face of the room, seen from inside.

    Attributes:
        surface: what it is covered with.
        corner: (3,) metres.
        u, v: (3,) edges from that corner, metres; texture columns run along u, rows against v.
    """

    surface: Surface
    corner: Array
    u: Array
    v: Array


@dataclass(frozen=True, eq=False)
class Plan:
    """A room: x in 0..size[0], y in 0..size[1], z in 0..size[2].

    Attributes:
        seed: what it was drawn from.
        size: (3,) metres.
        walls: floor, ceiling and four walls.
        parts: everything in the room.
        lights: what shines.
        obstacles: (n, 2, 3) smallest and largest corner of each piece of furniture, metres.
        walk: where the camera may go.
    """

    seed: int
    size: Array
    walls: list[Wall]
    parts: list[Part]
    lights: list[Light]
    obstacles: Array
    walk: Walk


def plan_room(seed: int) -> Plan:
    """A lived-in room by daylight or lamplight; the same seed gives the same room."""
    rng = np.random.default_rng(seed)
    size = np.array([rng.uniform(4.0, 6.2), rng.uniform(3.6, 5.0), rng.uniform(2.4, 2.8)])
    evening = bool(rng.random() < 0.3)
    walls = _shell(rng, size)
    materials = Materials.draw(rng)
    fixed, lights, keep_out = _openings(rng, size, evening)
    pieces, walk = _furnish(rng, size, materials, keep_out)
    for part in (part for piece in pieces for part in piece):
        if part.surface.glow and part.shape == "cylinder":
            lights.append(_bulb(part.centre, 7.0 if evening else 2.0))
    obstacles = np.array([_bounds(piece) for piece in pieces]).reshape(-1, 2, 3)
    parts = fixed + _rugs(rng, walk) + [part for piece in pieces for part in piece]
    return Plan(seed, size, walls, parts, lights, obstacles, walk)


def _shell(rng: np.random.Generator, size: Array) -> list[Wall]:
    """Floor, ceiling and four walls."""
    x, y, z = np.diag(size)
    o = np.zeros(3)
    paints = [(206, 198, 184), (190, 196, 194), (212, 206, 190), (178, 186, 176), (204, 188, 172),
              (168, 176, 188), (216, 212, 206)]  # fmt: skip
    paint = paints[int(rng.integers(len(paints)))]
    wall = texture.plaster(rng, paint)
    accent = wall
    style = rng.random()
    if style < 0.3:
        accent = texture.wallpaper(rng, paints[int(rng.integers(len(paints)))])
    elif style < 0.45:
        accent = texture.brick(rng, (158, 96, 74))
    elif style < 0.6:
        accent = texture.plaster(rng, (112, 124, 130))
    floors: list[tuple[Callable[[np.random.Generator, RGB], Surface], RGB]] = [
        (texture.planks, (156, 112, 74)),
        (texture.planks, (112, 78, 54)),
        (texture.planks, (178, 146, 108)),
        (texture.tiles, (186, 174, 156)),
        (texture.carpet, (138, 128, 116)),
    ]
    cover, colour = floors[int(rng.integers(len(floors)))]
    floor = cover(rng, colour)
    ceiling = texture.plaster(rng, (228, 226, 220))
    sides = [(o, y, z), (y, x, z), (x + y, -y, z), (x, -x, z)]
    chosen = int(rng.integers(4))
    walls = [Wall(accent if k == chosen else wall, *side) for k, side in enumerate(sides)]
    return [Wall(floor, o, x, y), Wall(ceiling, y + z, x, -y), *walls]


def _side(size: Array, side: int) -> tuple[float, Array, float]:
    """Length, middle of the foot (2,), and the yaw of a piece with its back to wall `side`."""
    w, d = float(size[0]), float(size[1])
    return (
        (d, np.array([0.0, d / 2]), math.pi / 2),
        (w, np.array([w / 2, d]), 0.0),
        (d, np.array([w, d / 2]), -math.pi / 2),
        (w, np.array([w / 2, 0.0]), math.pi),
    )[side]


def _against(parts: list[Part], size: Array, side: int, along: float) -> list[Part]:
    """Puts a piece's back to a wall, `along` metres from its middle."""
    _, foot, yaw = _side(size, side)
    x, y = foot + along * np.array([math.cos(yaw), math.sin(yaw)])
    return [part.moved(float(x), float(y), yaw) for part in parts]


def _bounds(parts: list[Part]) -> Array:
    corners = np.array([part.bounds() for part in parts])
    return np.stack([corners[:, 0].min(0), corners[:, 1].max(0)])


def _bulb(centre: Array, watts: float) -> Light:
    colour = np.array([1.0, 0.78, 0.55])
    edges = np.array([[0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])
    return Light(centre, edges, np.zeros(3), colour * watts / (4 * math.pi))


def _openings(
    rng: np.random.Generator, size: Array, evening: bool
) -> tuple[list[Part], list[Light], list[Array]]:
    """Door, windows, skirting, ceiling lamp, pictures.

    Returns:
        their parts, the light they give, and boxes (2, 3) that furniture must stay out of.
    """
    white, metal = plain((226, 223, 214)), plain((140, 138, 134))
    parts: list[Part] = []
    keep_out: list[Array] = []
    order = rng.permutation(4)

    length, _, _ = _side(size, int(order[0]))
    leaf = white if rng.random() < 0.6 else texture.wood(rng, (146, 102, 66))
    frame = [box(white, (0.08, 0.05, 2.08), (x, -0.025, 0.0)) for x in (-0.44, 0.44)]
    frame.append(box(white, (0.8, 0.05, 0.08), (0.0, -0.025, 2.0)))
    frame.append(box(leaf, (0.8, 0.03, 2.0), (0.0, -0.015, 0.0)))
    for z, height in ((0.18, 0.75), (1.05, 0.8)):
        for x in (-0.18, 0.18):
            frame.append(box(leaf, (0.26, 0.012, height), (x, -0.034, z)))
    frame.append(box(metal, (0.04, 0.01, 0.18), (0.34, -0.035, 0.96)))
    frame.append(box(metal, (0.12, 0.018, 0.018), (0.29, -0.07, 1.05)))
    frame.append(box(white, (0.085, 0.012, 0.085), (0.62, -0.006, 1.05)))
    along = float(rng.uniform(-1, 1) * (length / 2 - 0.8))
    door = _against(frame, size, int(order[0]), along)
    parts += door
    sweep = _against([box(white, (0.9, 0.95, 2.0), (0, -0.475, 0))], size, int(order[0]), along)
    keep_out.append(_bounds(sweep))

    lights: list[Light] = []
    curtain = texture.folds(
        rng, [(170, 160, 144), (120, 128, 136), (150, 120, 96)][rng.integers(3)]
    )
    for side in order[1 : 2 + int(rng.random() < 0.5)]:
        length, _, yaw = _side(size, int(side))
        wide, high, sill = float(rng.uniform(1.1, 1.9)), float(rng.uniform(1.1, 1.35)), 0.9
        pane = box(texture.outside(rng, evening), (wide, 0.01, high), (0.0, -0.005, sill))
        window = [pane, box(white, (wide + 0.2, 0.2, 0.03), (0.0, -0.1, sill - 0.06))]
        for x in (-wide / 2, 0.0, wide / 2):
            window.append(box(white, (0.06, 0.05, high + 0.06), (x, -0.025, sill - 0.03)))
        for z in (sill - 0.03, sill + high - 0.03):
            window.append(box(white, (wide, 0.045, 0.06), (0.0, -0.0225, z)))
        if rng.random() < 0.7:
            for x in (-wide / 2 - 0.2, wide / 2 + 0.2):
                window.append(box(curtain, (0.4, 0.07, sill + high + 0.1), (x, -0.12, 0.04)))
            window.append(box(metal, (wide + 0.9, 0.025, 0.025), (0.0, -0.12, sill + high + 0.15)))
        window.append(box(white, (0.9, 0.09, 0.56), (0.0, -0.06, 0.13)))
        ribs = np.arange(-0.405, 0.42, 0.09)
        window += [box(white, (0.05, 0.02, 0.5), (float(x), -0.115, 0.16)) for x in ribs]
        along = float(rng.uniform(-1, 1) * max(length / 2 - wide / 2 - 0.5, 0))
        window = _against(window, size, int(side), along)
        parts += window
        keep = _against([box(white, (wide + 0.9, 0.25, 1.0), (0, -0.125, 0.95))], size,
                        int(side), along)  # fmt: skip
        keep_out.append(_bounds(keep))
        inward = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
        across = np.array([math.cos(yaw), math.sin(yaw), 0.0]) * wide / 2
        sky = np.array([0.82, 0.93, 1.1]) * (0.06 if evening else 5.0) * wide * high
        edges = np.stack([across * 0.8, np.array([0.0, 0.0, high * 0.4])])
        lights.append(Light(window[0].centre + inward * 0.06, edges, inward, sky))

    for side in order[[0, 2, 3]]:
        length, _, _ = _side(size, int(side))
        for _ in range(int(rng.integers(1, 3))):
            wide, high = rng.uniform(0.35, 0.9), rng.uniform(0.35, 0.7)
            bottom = float(rng.uniform(1.4, 1.6))
            rim = plain([(52, 42, 36), (196, 176, 132), (222, 220, 214)][rng.integers(3)])
            art = [box(rim, (wide, 0.025, high), (0.0, -0.0125, bottom))]
            inner = (wide - 0.05, 0.004, high - 0.05)
            art.append(box(texture.picture(rng), inner, (0.0, -0.027, bottom + 0.025)))
            hung = _against(art, size, int(side), float(rng.uniform(-1, 1) * (length / 2 - 0.6)))
            outline = _bounds(hung) + np.array([[-0.1] * 3, [0.1] * 3])
            if not any(_overlap(outline, _bounds([part])) for part in parts):
                parts += hung
                keep_out.append(outline)

    for side in range(4):
        length, _, _ = _side(size, side)
        parts += _against([box(white, (length, 0.015, 0.09), (0.0, -0.0075, 0.0))], size, side, 0)

    cx, cy, top = float(size[0] / 2), float(size[1] / 2), float(size[2])
    shade = texture.glowing((240, 228, 204), 2.4 if evening else 1.4)
    parts.append(cylinder(metal, 0.12, 0.03, (cx, cy, top - 0.03)))
    parts.append(cylinder(shade, 0.4, 0.14, (cx, cy, top - 0.17)))
    lights.append(_bulb(np.array([cx, cy, top - 0.2]), 36.0 if evening else 10.0))
    return parts, lights, keep_out


def _overlap(a: Array, b: Array) -> bool:
    return bool((a[0] < b[1]).all() and (b[0] < a[1]).all())


def _furnish(
    rng: np.random.Generator, size: Array, materials: Materials, keep_out: list[Array]
) -> tuple[list[list[Part]], Walk]:
    """Pieces along the walls around an ellipse that stays free."""
    radii = np.array([rng.uniform(0.45, 0.8), rng.uniform(0.4, 0.6)])
    slack = size[:2] / 2 - radii - CLEARANCE_M - 0.65
    centre = size[:2] / 2 + rng.uniform(-1, 1, 2) * slack.clip(0)
    walk = Walk(centre, radii)
    ring = np.linspace(0, 2 * np.pi, 73)
    path = centre + radii * np.stack([np.cos(ring), np.sin(ring)], -1)
    path = np.concatenate([path, centre + (path - centre) * 0.5, centre[None]])

    kind = furniture.ROOMS[str(rng.choice(list(furniture.ROOMS)))]
    placed: list[list[Part]] = []
    for make in kind:
        parts = make(rng, materials)
        for _ in range(60):
            side = int(rng.integers(4))
            length, _, _ = _side(size, side)
            width = float(np.ptp(_bounds(parts)[:, 0]))
            along = float(rng.uniform(-1, 1) * max(length / 2 - width / 2 - 0.06, 0))
            gap = float(rng.choice([0.03, 0.03, 0.5]) if make is not furniture.dining else 0.75)
            piece = _against([p.moved(0, -gap, 0) for p in parts], size, side, along)
            outline = _bounds(piece)
            inside = (outline[0] > -1e-6).all() and (outline[1] < size).all()
            away = np.maximum(outline[0, :2] - path, path - outline[1, :2]).clip(0)
            free = np.linalg.norm(away, axis=1).min() > CLEARANCE_M + 0.04
            margin = outline + np.array([[-0.05] * 3, [0.05] * 3])
            clear = not any(_overlap(margin, other) for other in keep_out)
            if inside and free and clear:
                placed.append(piece)
                keep_out.append(outline)
                break
    return placed, walk


def _rugs(rng: np.random.Generator, walk: Walk) -> list[Part]:
    if rng.random() < 0.35:
        return []
    colours = [(126, 62, 56), (70, 84, 108), (172, 160, 138), (94, 96, 88)]
    first, second = rng.permutation(4)[:2]
    rug = texture.rug(rng, colours[first], colours[second])
    wide, deep = float(rng.uniform(1.6, 2.3)), float(rng.uniform(1.1, 1.6))
    x, y = walk.centre
    return [box(rug, (wide, deep, 0.01), (float(x), float(y), 0.0), float(rng.normal(0, 0.05)))]
