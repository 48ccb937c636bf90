"""Which version of the code something was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit_hash() -> str:
    """The repository's commit, or `unknown` outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
