"""Tables that read well in a terminal and in a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures.

    >>> print(markdown_table(("engine", "ms"), (("onnx", "9.5"), ("openvino", "12.0"))))
    | engine   |   ms |
    |:---------|-----:|
    | onnx     |  9.5 |
    | openvino | 12.0 |
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "|".join(
        f"{'-' * (width + 1)}:" if i else f":{'-' * (width + 1)}" for i, width in enumerate(widths)
    )
    lines = []
    for row in (header, *rows):
        cells = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])
