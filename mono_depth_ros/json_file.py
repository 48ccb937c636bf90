"""Results for machines: JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Writes a document for machines, with null for NaN, which JSON has not; its folder is made.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    finite = json.loads(json.dumps(document), parse_constant=lambda name: None)
    path.write_text(json.dumps(finite, indent=2) + "\n")
