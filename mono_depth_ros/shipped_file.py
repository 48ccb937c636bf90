"""Where the files that come with the package are: a checkout, or an installed share directory."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_file(relative: str) -> Path:
    """Finds a file such as `models/compact.onnx` or `config/fastdds.xml`.

    Looks beside the package (a checkout, or colcon's symlink install), then in
    `share/mono_depth_ros` of every directory above it (colcon, apt and pip installs).

    Raises:
        FileNotFoundError: it is in neither place.
    """
    candidates = [_PACKAGE.parent / relative]
    candidates += [parent / "share" / _PACKAGE.name / relative for parent in _PACKAGE.parents]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{relative}: did not come with the package; install it again")
