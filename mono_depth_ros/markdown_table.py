"""Tables in Markdown: for a terminal, and for a page that is kept up to date."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Rows = Sequence[Sequence[str]]
# As a character of a cell.
_PIPE = r"\|"


def markdown_table(header: Sequence[str], rows: Rows, align: str = "") -> str:
    """A table that reads well in a terminal, too.

    Args:
        align: `<` or `>` for each column; by default the first is text and the others are figures.

    >>> print(markdown_table(("engine", "ms"), (("onnx", "9.5"), ("openvino", "12.0"))))
    | engine   |   ms |
    |:---------|-----:|
    | onnx     |  9.5 |
    | openvino | 12.0 |
    """
    sides = align or "<" + ">" * (len(header) - 1)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "|".join(
        f":{'-' * (width + 1)}" if side == "<" else f"{'-' * (width + 1)}:"
        for side, width in zip(sides, widths, strict=True)
    )
    lines = []
    for row in (header, *rows):
        cells = (
            f"{cell:{side}{width}}" for side, cell, width in zip(sides, row, widths, strict=True)
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def page_table(header: Sequence[str], rows: Rows) -> str:
    r"""A table for a page: no padding, which would change all rows with the longest.

    >>> print(page_table(("key", "meaning"), [("a", "one|two")]))
    | key | meaning |
    |---|---|
    | a | one\|two |
    """
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"a row of the table {'|'.join(header)} has more or fewer cells than it")
    lines = [
        f"| {' | '.join(cell.replace('|', _PIPE) for cell in row)} |" for row in (header, *rows)
    ]
    return "\n".join([lines[0], f"|{'---|' * len(header)}", *lines[1:]])


def with_tables(page: str, word: str, table: Callable[[str], str]) -> str:
    r"""A page whose tables, each between `<!-- WORD NAME -->` and `<!-- end -->`, are made anew.

    Args:
        word: what marks the tables that are meant.
        table: makes one from its name.

    >>> with_tables("<!-- sum a --><!-- end -->", "sum", lambda name: f"table of {name}")
    '<!-- sum a -->\ntable of a\n<!-- end -->'
    """
    return re.sub(
        rf"<!-- {word} (\w+) -->.*?<!-- end -->",
        lambda match: f"<!-- {word} {match[1]} -->\n{table(match[1])}\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )
