"""Furniture of real-world size, each piece a list of parts.

A piece stands on the floor at the origin of its own frame; its back, if it has one, is at y = 0
and its front looks along -y. All lengths are metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mono_depth_ros.sim import texture
from mono_depth_ros.sim.part import Part, box, cylinder, ellipsoid
from mono_depth_ros.sim.texture import RGB, Surface, plain

Rng = np.random.Generator
Piece = Callable[["Rng", "Materials"], "list[Part]"]

_WOODS: list[RGB] = [(158, 116, 76), (96, 64, 42), (186, 150, 108), (122, 84, 56), (70, 50, 40)]
_CLOTHS: list[RGB] = [
    (96, 104, 112), (126, 116, 104), (70, 82, 100), (142, 98, 82), (104, 112, 92), (168, 158, 144),
    (60, 62, 68), (122, 70, 64),
]  # fmt: skip
_COVERS: list[RGB] = [
    (124, 62, 56), (62, 78, 102), (192, 180, 154), (76, 92, 80), (44, 44, 48), (176, 146, 92),
    (214, 210, 202), (104, 92, 108), (94, 70, 56), (146, 156, 162), (206, 198, 180),
]  # fmt: skip


def _pick(rng: Rng, colours: list[RGB]) -> RGB:
    return colours[int(rng.integers(len(colours)))]


@dataclass(frozen=True, eq=False)
class Materials:
    """What the furniture of one room is made of, so that it looks as if bought together."""

    wood: Surface
    second_wood: Surface
    cloth: Surface
    second_cloth: Surface
    linen: Surface
    painted: Surface
    metal: Surface
    dark: Surface

    @classmethod
    def draw(cls, rng: Rng) -> Materials:
        """A random set."""
        return cls(
            texture.wood(rng, _pick(rng, _WOODS)),
            texture.wood(rng, _pick(rng, _WOODS)),
            texture.fabric(rng, _pick(rng, _CLOTHS)),
            texture.fabric(rng, _pick(rng, _CLOTHS)),
            texture.fabric(rng, (206, 202, 194)),
            plain((222, 219, 210)),
            plain((150, 150, 152)),
            plain((42, 42, 44)),
        )


def _legs(s: Surface, width: float, depth: float, height: float, thick: float) -> list[Part]:
    x, y = (width - thick) / 2 - 0.02, (depth - thick) / 2 - 0.02
    size = (thick, thick, height)
    return [box(s, size, (i * x, j * y - depth / 2, 0.0)) for i in (-1, 1) for j in (-1, 1)]


def _books(rng: Rng, x0: float, x1: float, y: float, z: float, tallest: float) -> list[Part]:
    """A row of books from x0 to x1 with their spines at y, some leaning, some missing."""
    parts, x = [], x0
    while x < x1 - 0.06:
        thick, height = rng.uniform(0.018, 0.055), rng.uniform(0.65, 0.95) * tallest
        deep = rng.uniform(0.13, 0.2)
        cover = plain(_pick(rng, _COVERS))
        parts.append(box(cover, (thick, deep, height), (x + thick / 2, y + deep / 2, z)))
        x += thick + 0.002 + (rng.uniform(0.05, 0.25) if rng.random() < 0.12 else 0)
    return parts


def _clutter(rng: Rng, width: float, depth: float, z: float, count: int) -> list[Part]:
    """Everyday objects on a surface of the given extent whose back edge is y = 0."""
    parts: list[Part] = []
    xs = (np.arange(count) + 0.5) / count * width - width / 2
    for x0 in xs:
        x = float(x0 + rng.uniform(-0.04, 0.04))
        y = float(-depth / 2 + rng.uniform(-0.25, 0.25) * depth)
        colour = plain(_pick(rng, _COVERS))
        kind = int(rng.integers(6))
        if kind == 0:  # mug
            parts.append(cylinder(colour, 0.085, 0.095, (x, y, z)))
            parts.append(box(colour, (0.05, 0.012, 0.06), (x + 0.05, y, z + 0.02)))
        elif kind == 1:  # books lying
            for k in range(int(rng.integers(1, 4))):
                cover = plain(_pick(rng, _COVERS))
                yaw = float(rng.uniform(-0.4, 0.4))
                parts.append(box(cover, (0.16, 0.23, 0.03), (x, y, z + 0.031 * k), yaw))
        elif kind == 2:  # bottle
            parts.append(cylinder(colour, 0.075, 0.19, (x, y, z)))
            parts.append(cylinder(colour, 0.03, 0.09, (x, y, z + 0.19)))
        elif kind == 3:  # bowl of fruit
            parts.append(cylinder(colour, 0.22, 0.06, (x, y, z)))
            for dx, dy in ((-0.04, 0.0), (0.045, 0.03), (0.01, -0.05)):
                fruit = plain(_pick(rng, [(168, 62, 40), (206, 150, 52), (128, 140, 58)]))
                parts.append(ellipsoid(fruit, (0.075, 0.075, 0.07), (x + dx, y + dy, z + 0.04)))
        elif kind == 4:  # vase with a plant
            parts.append(cylinder(colour, 0.11, 0.13, (x, y, z)))
            parts += _leaves(rng, x, y, z + 0.13, 0.22)
        else:  # box
            yaw = float(rng.uniform(-0.5, 0.5))
            parts.append(box(colour, (0.2, 0.14, 0.11), (x, y, z), yaw))
    return parts


def _leaves(rng: Rng, x: float, y: float, z: float, spread: float) -> list[Part]:
    parts = []
    for _ in range(9):
        green = plain(_pick(rng, [(70, 98, 56), (92, 118, 66), (52, 80, 50)]))
        dx, dy = rng.normal(0, spread / 4, 2)
        size = (spread * 0.45, spread * 0.2, spread * rng.uniform(0.5, 0.9))
        base = (x + float(dx), y + float(dy), z + float(rng.uniform(-0.05, 0.35)) * spread)
        parts.append(ellipsoid(green, size, base, float(rng.uniform(0, np.pi))))
    return parts


def chair(rng: Rng, m: Materials) -> list[Part]:
    """Seat at 0.45 m."""
    parts = _legs(m.wood, 0.44, 0.44, 0.43, 0.04)
    parts.append(box(m.cloth, (0.44, 0.44, 0.04), (0.0, -0.22, 0.43)))
    for x in (-0.19, 0.19):
        parts.append(box(m.wood, (0.035, 0.035, 0.46), (x, -0.02, 0.45)))
    for z in (0.58, 0.8):
        parts.append(box(m.wood, (0.38, 0.02, 0.1), (0.0, -0.02, z)))
    return parts


def dining(rng: Rng, m: Materials) -> list[Part]:
    """A table 0.75 m high and its chairs."""
    width = float(rng.uniform(1.2, 1.6))
    parts = _legs(m.wood, width, 0.85, 0.71, 0.065)
    parts.append(box(m.wood, (width, 0.85, 0.04), (0.0, -0.425, 0.71)))
    parts.append(box(m.wood, (width - 0.2, 0.02, 0.08), (0.0, -0.07, 0.63)))
    parts.append(box(m.wood, (width - 0.2, 0.02, 0.08), (0.0, -0.78, 0.63)))
    parts += _clutter(rng, width * 0.8, 0.85, 0.75, int(rng.integers(3, 6)))
    for x in (-width / 4, width / 4):
        for y, yaw in ((0.28, 0.0), (-1.13, np.pi)):
            if rng.random() < 0.85:
                turn = yaw + float(rng.normal(0, 0.12))
                shift = float(rng.uniform(-0.03, 0.1)) * (1 if yaw == 0 else -1)
                parts += [p.moved(x, y + shift, turn) for p in chair(rng, m)]
    return parts


def desk(rng: Rng, m: Materials) -> list[Part]:
    """Desk with a screen, a lamp and a chair."""
    width = float(rng.uniform(1.2, 1.5))
    parts = _legs(m.metal, width, 0.7, 0.71, 0.05)
    parts.append(box(m.second_wood, (width, 0.7, 0.03), (0.0, -0.35, 0.71)))
    parts.append(box(m.painted, (0.4, 0.55, 0.55), (width / 2 - 0.26, -0.32, 0.12)))
    for k in range(3):
        x, z = width / 2 - 0.26, 0.14 + 0.18 * k
        parts.append(box(m.painted, (0.37, 0.015, 0.165), (x, -0.6, z)))
        parts.append(box(m.metal, (0.12, 0.02, 0.012), (x, -0.615, z + 0.1)))
    parts.append(box(m.dark, (0.56, 0.03, 0.34), (-0.1, -0.2, 0.84)))
    screen = texture.glowing(_pick(rng, [(58, 84, 120), (30, 32, 36), (120, 128, 134)]), 0.8)
    parts.append(box(screen, (0.53, 0.004, 0.31), (-0.1, -0.217, 0.855)))
    parts.append(box(m.dark, (0.06, 0.04, 0.12), (-0.1, -0.18, 0.74)))
    parts.append(box(m.dark, (0.22, 0.16, 0.012), (-0.1, -0.19, 0.74)))
    parts.append(box(m.dark, (0.42, 0.13, 0.02), (-0.1, -0.5, 0.74)))
    parts += [p.moved(width / 2 - 0.2, -0.05, 0) for p in _clutter(rng, 0.3, 0.4, 0.74, 1)]
    turn = np.pi + float(rng.normal(0, 0.3))
    return parts + [p.moved(-0.1, -1.05, turn) for p in chair(rng, m)]


def shelf(rng: Rng, m: Materials) -> list[Part]:
    """Bookcase 1.4 to 2.0 m high."""
    width, height = float(rng.uniform(0.7, 1.1)), float(rng.uniform(1.4, 2.0))
    deep, count = 0.3, round(height / 0.36)
    pitch = (height - 0.08) / count
    parts = [box(m.second_wood, (0.02, deep, height), (x, -deep / 2, 0.0))
             for x in (-width / 2, width / 2)]  # fmt: skip
    parts.append(box(m.second_wood, (width, 0.01, height), (0.0, -0.006, 0.0)))
    for k in range(count + 1):
        z = 0.06 + k * pitch
        parts.append(box(m.second_wood, (width - 0.02, deep, 0.02), (0.0, -deep / 2, z)))
        if k == count:
            continue
        left, right = -width / 2 + 0.02, width / 2 - 0.02
        if rng.random() < 0.75:
            end = right - float(rng.choice([0.0, 0.0, 0.3]))
            parts += _books(rng, left, end, -0.25, z + 0.02, pitch - 0.04)
        else:
            parts += _clutter(rng, width - 0.2, deep, z + 0.02, 2)
    return parts


def cabinet(rng: Rng, m: Materials) -> list[Part]:
    """Sideboard with doors and things on it."""
    width, height, deep = float(rng.uniform(0.9, 1.5)), float(rng.uniform(0.72, 0.92)), 0.42
    body = m.wood if rng.random() < 0.6 else m.painted
    parts = [box(m.dark, (width - 0.08, deep - 0.06, 0.07), (0.0, -deep / 2, 0.0))]
    parts.append(box(body, (width, deep, height - 0.09), (0.0, -deep / 2, 0.07)))
    parts.append(box(body, (width + 0.02, deep + 0.02, 0.025), (0.0, -deep / 2, height - 0.025)))
    doors = round(width / 0.45)
    pitch = width / doors
    for k in range(doors):
        x = -width / 2 + (k + 0.5) * pitch
        parts.append(box(body, (pitch - 0.012, 0.016, height - 0.13), (x, -deep - 0.008, 0.085)))
        knob = (x + pitch * 0.38 * (-1) ** k, -deep - 0.025, height * 0.55)
        parts.append(box(m.metal, (0.014, 0.02, 0.1), knob))
    return parts + _clutter(rng, width * 0.85, deep, height, int(rng.integers(2, 5)))


def wardrobe(rng: Rng, m: Materials) -> list[Part]:
    """Two doors, 2.0 m high."""
    width, height, deep = float(rng.uniform(0.95, 1.4)), 2.0, 0.58
    parts = [box(m.second_wood, (width, deep, height), (0.0, -deep / 2, 0.0))]
    for side in (-1, 1):
        x = side * width / 4
        front = (x, -deep - 0.009, 0.08)
        parts.append(box(m.second_wood, (width / 2 - 0.008, 0.018, height - 0.1), front))
        handle = (side * 0.05, -deep - 0.03, 0.95)
        parts.append(box(m.metal, (0.016, 0.025, 0.2), handle))
    return parts


def sofa(rng: Rng, m: Materials) -> list[Part]:
    """Two or three seats at 0.43 m."""
    seats = int(rng.integers(2, 4))
    width, deep = 0.62 * seats + 0.36, 0.88
    parts = _legs(m.dark, width, deep, 0.1, 0.06)
    parts.append(box(m.cloth, (width, deep, 0.18), (0.0, -deep / 2, 0.1)))
    parts.append(box(m.cloth, (width, 0.22, 0.5), (0.0, -0.12, 0.26), tilt=-0.06))
    for side in (-1, 1):
        x = side * (width / 2 - 0.09)
        parts.append(box(m.cloth, (0.18, deep, 0.4), (x, -deep / 2, 0.22)))
        parts.append(box(m.cloth, (0.2, deep, 0.05), (x, -deep / 2, 0.61)))
    for k in range(seats):
        x = (k - (seats - 1) / 2) * 0.62
        parts.append(box(m.cloth, (0.605, 0.62, 0.15), (x, -0.56, 0.285)))
        parts.append(box(m.cloth, (0.59, 0.16, 0.42), (x, -0.3, 0.43), tilt=-0.2))
        if rng.random() < 0.6:
            turn = float(rng.normal(0, 0.2))
            parts.append(box(m.second_cloth, (0.4, 0.12, 0.38), (x, -0.44, 0.43), turn, -0.3))
    return parts


def armchair(rng: Rng, m: Materials) -> list[Part]:
    """One seat."""
    parts = _legs(m.wood, 0.78, 0.8, 0.14, 0.05)
    parts.append(box(m.second_cloth, (0.78, 0.8, 0.2), (0.0, -0.4, 0.14)))
    parts.append(box(m.second_cloth, (0.5, 0.6, 0.12), (0.0, -0.5, 0.33)))
    parts.append(box(m.second_cloth, (0.78, 0.16, 0.6), (0.0, -0.12, 0.3), tilt=-0.12))
    for x in (-0.32, 0.32):
        parts.append(box(m.second_cloth, (0.14, 0.74, 0.28), (x, -0.42, 0.3)))
    return parts


def bed(rng: Rng, m: Materials) -> list[Part]:
    """Mattress top at 0.52 m, head at the wall."""
    width, long = float(rng.choice([0.95, 1.4, 1.6])), 2.05
    parts = _legs(m.wood, width, long, 0.2, 0.07)
    parts.append(box(m.wood, (width, 0.05, 0.95), (0.0, -0.025, 0.0)))
    parts.append(box(m.wood, (width, long - 0.05, 0.14), (0.0, -long / 2, 0.16)))
    parts.append(box(m.linen, (width - 0.04, long - 0.1, 0.2), (0.0, -long / 2, 0.3)))
    cover = (width + 0.05, 1.35, 0.26)
    parts.append(box(m.second_cloth, cover, (0.0, -long + 0.68, 0.27)))
    count = 1 if width < 1.2 else 2
    for k in range(count):
        x = (k - (count - 1) / 2) * 0.68
        parts.append(ellipsoid(m.linen, (0.66, 0.46, 0.19), (x, -0.34, 0.46)))
    return parts


def nightstand(rng: Rng, m: Materials) -> list[Part]:
    """With a small lamp."""
    parts = [box(m.wood, (0.45, 0.38, 0.5), (0.0, -0.2, 0.03))]
    for z in (0.08, 0.3):
        parts.append(box(m.wood, (0.42, 0.015, 0.19), (0.0, -0.397, z)))
        parts.append(box(m.metal, (0.1, 0.02, 0.014), (0.0, -0.41, z + 0.09)))
    parts.append(cylinder(m.metal, 0.11, 0.015, (0.05, -0.17, 0.53)))
    parts.append(cylinder(m.metal, 0.02, 0.2, (0.05, -0.17, 0.545)))
    parts.append(cylinder(texture.glowing((232, 216, 184)), 0.2, 0.17, (0.05, -0.17, 0.72)))
    parts.append(box(plain(_pick(rng, _COVERS)), (0.14, 0.2, 0.03), (-0.12, -0.22, 0.53), 0.3))
    return parts


def floor_lamp(rng: Rng, m: Materials) -> list[Part]:
    """1.6 m high."""
    parts = [cylinder(m.dark, 0.28, 0.025, (0.0, -0.2, 0.0))]
    parts.append(cylinder(m.metal, 0.025, 1.3, (0.0, -0.2, 0.025)))
    parts.append(cylinder(texture.glowing((236, 220, 186)), 0.36, 0.26, (0.0, -0.2, 1.32)))
    return parts


def plant(rng: Rng, m: Materials) -> list[Part]:
    """A rubber plant in a pot."""
    pot = plain(_pick(rng, [(150, 92, 66), (206, 202, 194), (70, 72, 76)]))
    parts = [cylinder(pot, 0.32, 0.3, (0.0, -0.25, 0.0))]
    parts.append(cylinder(plain((84, 66, 48)), 0.03, 0.6, (0.0, -0.25, 0.3)))
    return parts + _leaves(rng, 0.0, -0.25, 0.62, 0.5) + _leaves(rng, 0.03, -0.22, 0.9, 0.4)


def television(rng: Rng, m: Materials) -> list[Part]:
    """A low board with a television on it."""
    parts = [box(m.second_wood, (1.5, 0.4, 0.36), (0.0, -0.2, 0.08))]
    for x in (-0.5, 0.0, 0.5):
        parts.append(box(m.second_wood, (0.49, 0.016, 0.32), (x, -0.408, 0.1)))
    parts += _legs(m.dark, 1.5, 0.4, 0.08, 0.04)
    parts.append(box(m.dark, (0.4, 0.2, 0.015), (0.0, -0.2, 0.44)))
    parts.append(box(m.dark, (0.06, 0.04, 0.1), (0.0, -0.2, 0.45)))
    parts.append(box(m.dark, (1.08, 0.05, 0.63), (0.0, -0.2, 0.52)))
    parts.append(box(plain((22, 23, 26)), (1.05, 0.004, 0.6), (0.0, -0.227, 0.535)))
    return parts + [p.moved(0.62, 0, 0) for p in _clutter(rng, 0.15, 0.35, 0.44, 1)]


def coffee_table(rng: Rng, m: Materials) -> list[Part]:
    """0.42 m high."""
    parts = _legs(m.wood, 0.95, 0.55, 0.39, 0.05)
    parts.append(box(m.wood, (0.95, 0.55, 0.035), (0.0, -0.275, 0.385)))
    parts.append(box(m.wood, (0.85, 0.45, 0.02), (0.0, -0.275, 0.15)))
    return parts + _clutter(rng, 0.8, 0.5, 0.42, 3)


def stool(rng: Rng, m: Materials) -> list[Part]:
    """A pouf."""
    return [cylinder(m.second_cloth, 0.45, 0.42, (0.0, -0.25, 0.0))]


def wall_shelf(rng: Rng, m: Materials) -> list[Part]:
    """A board on the wall at 1.35 m with a row of books."""
    parts = [box(m.wood, (0.9, 0.24, 0.03), (0.0, -0.12, 1.35))]
    for x in (-0.3, 0.3):
        parts.append(box(m.metal, (0.03, 0.2, 0.03), (x, -0.1, 1.32)))
    end = float(rng.uniform(0.0, 0.25))
    parts += _books(rng, -0.42, end, -0.2, 1.38, 0.28)
    return parts + [p.moved(0.32, 0, 0) for p in _clutter(rng, 0.15, 0.22, 1.38, 1)]


def toys(rng: Rng, m: Materials) -> list[Part]:
    """A basket and cardboard boxes on the floor."""
    parts = [cylinder(m.second_cloth, 0.38, 0.34, (-0.3, -0.24, 0.0))]
    card = plain((164, 130, 92))
    parts.append(box(card, (0.42, 0.32, 0.28), (0.16, -0.2, 0.0), float(rng.normal(0, 0.1))))
    if rng.random() < 0.6:
        parts.append(box(card, (0.34, 0.26, 0.2), (0.17, -0.2, 0.28), float(rng.normal(0, 0.2))))
    return parts


# Large pieces first: what no longer fits is left out.
ROOMS: dict[str, tuple[Piece, ...]] = {
    "living": (sofa, television, shelf, armchair, cabinet, floor_lamp, coffee_table, wall_shelf,
               plant, stool, toys, shelf),
    "bedroom": (bed, wardrobe, cabinet, nightstand, shelf, armchair, wall_shelf, chair, plant,
                toys, stool),
    "dining": (dining, cabinet, shelf, armchair, plant, floor_lamp, wall_shelf, cabinet, toys,
               chair, plant),
    "study": (desk, shelf, sofa, shelf, cabinet, armchair, floor_lamp, wall_shelf, plant, stool,
              toys),
}  # fmt: skip
