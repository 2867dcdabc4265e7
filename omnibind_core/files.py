"""Where computed files are kept, and writing that is seen whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from omnibind_core.errors import DataError


def cache_folder() -> Path:
    """Where downloaded and computed files are kept: ``$OMNIBIND_CACHE``, else ``$XDG_CACHE_HOME/omnibind``, else
    ``~/.cache/omnibind``. It is not created here.

    Raises:
        OSError: None of them is set, and the user has no home.
    """
    own = os.environ.get("OMNIBIND_CACHE")
    if own:
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "omnibind"
    try:
        return Path.home() / ".cache" / "omnibind"
    except RuntimeError as error:
        raise OSError("there is no home folder to cache in; OMNIBIND_CACHE may name one") from error


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` that replaces it when the block ends well, and is removed when it fails.

    So a half-written file is never seen under its name, and of two writers the last one wins with a whole file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes it private; the cache may be shared
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_replaceable(path: Path, ours: Collection[str]) -> None:
    """Refuses what :func:`write_folder_atomically` would refuse, before any work was done for it.

    Args:
        path: The folder to write.
        ours: Names, with ``*`` for anything, of files that may be replaced.

    Raises:
        DataError: ``path`` is a file, or a folder that also holds something else.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file: expected an empty folder, or none")
    names = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    foreign = [name for name in names if not any(fnmatch(name, pattern) for pattern in ours)]
    if foreign:
        raise DataError(
            f"{path} holds {', '.join(foreign[:5])}, which would be lost: expected an empty folder, or none"
        )


@contextmanager
def write_folder_atomically(path: Path, ours: Collection[str]) -> Iterator[Path]:
    """Gives a temporary folder beside ``path`` that replaces it when the block ends well, and is removed when it fails.

    Args:
        path: The folder to write. If there is one already, it is replaced.
        ours: Names, with ``*`` for anything, of files that may be replaced.

    Raises:
        DataError: ``path`` is a file, or a folder that also holds something else.
    """
    path = path.absolute()
    check_replaceable(path, ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        fresh = temporary / "new"
        fresh.mkdir()
        yield fresh
        for file in (*fresh.rglob("*"), fresh):  # so that a name never stands for less than was written
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        if path.exists():
            path.rename(temporary / "old")
        fresh.rename(path)
    finally:
        shutil.rmtree(temporary)


def expanded(given: str | os.PathLike[str]) -> Path:
    """A path with the home folder for ``~``; as it is where there is no such user."""
    path = Path(given)
    try:
        return path.expanduser()
    except RuntimeError:
        return path
