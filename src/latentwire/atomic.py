"""Files that are there as a whole or not at all, whatever happens while they are written."""

import os
from collections.abc import Callable
from pathlib import Path

from latentwire.errors import RunError


def atomic_write(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a new file, bring it to the disk, then move it over `path`."""
    partial = path.with_name(path.name + ".partial")
    try:
        fill(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise unwritable(path, error) from None


def unwritable(path: Path, error: Exception) -> RunError:
    """The error for a file that could not be written."""
    reason = " ".join(str(error).split())
    return RunError(
        f"expected to write {path}, got: {reason}; free space or choose another place. What stood there is kept"
    )
