"""A few of many, spread evenly, so that a look at them is a look at the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """The middles of `count` equal parts of `items`, in order; all where `count` is None or enough.

    >>> spread("abcdefghij", 5)
    ['b', 'd', 'f', 'h', 'j']
    >>> spread("abc", 5)
    ['a', 'b', 'c']

    Raises:
        ValueError: `count` is less than 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} of {len(items)} items is none; ask for one at least")
    if count is None or count >= len(items):
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
