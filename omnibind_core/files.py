"""Where computed files are kept, writing that is seen whole or not at all, and paths that stay in their folder."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath

from omnibind_core.errors import DataError

_NEW, _OLD, _GONE = "new", "old", "gone"  # in a temporary folder: what is written, what it replaces, what is removed
LINKS_VARIABLE = "OMNIBIND_LINKS"
"""Environment variable with the folders, ``:`` between them, into which links in folders of data may lead."""
_HERE, _SWAP = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


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
    foreign = [name for name in names if not _matches(name, ours)]
    if foreign:
        raise DataError(
            f"{path} holds {', '.join(foreign[:5])}, which would be lost: expected an empty folder, or none"
        )


@contextmanager
def write_folder_atomically(path: Path, ours: Collection[str], keep: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside ``path`` that replaces it when the block ends well, and is removed when it fails.

    Whenever the process is killed or the disk is full, what was there before or what was written is in place, whole.
    Where the file system cannot exchange two folders at once, a kill between two renames leaves what was there under
    another name, and the next call for the same ``path`` puts it back, as it removes what killed ones left.

    Args:
        path: The folder to write. If there is one already, it is replaced; the folder itself, not a link to it.
        ours: Names, with ``*`` for anything, of files that may be replaced.
        keep: Whether everything else that the folder holds stays there, instead of being refused.

    Raises:
        DataError: ``path`` is a file, or, unless ``keep``, a folder that also holds something else.
    """
    path = Path(os.path.realpath(path))
    _recover(path, ours)
    check_replaceable(path, ("*",) if keep else ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    lock = _lock(temporary)
    try:
        fresh = temporary / _NEW
        fresh.mkdir()
        yield fresh
        for file in (*fresh.rglob("*"), fresh):  # so that a name never stands for less than was written
            if not file.is_symlink():
                _to_disk(file)
        if path.exists():
            others = {entry.name for entry in path.iterdir() if not _matches(entry.name, ours)}
            _take_along(path, fresh, others)
            old = fresh.rename(temporary / _OLD)  # as which what is there then comes back
            if not _exchange(old, path):
                old.rename(fresh)
                path.rename(old)
                fresh.rename(path)
        else:
            fresh.rename(path)
        _to_disk(path.parent)
    finally:
        try:
            _settle(temporary, path, ours)
        finally:
            if lock is not None:
                os.close(lock)


def _recover(path: Path, ours: Collection[str]) -> None:
    """Puts in order what calls of :func:`write_folder_atomically` for this path left that were killed."""
    if not path.parent.is_dir():
        return
    for place in path.parent.glob(f".{glob.escape(path.name)}-????????"):
        with suppress(OSError):  # of another user, or no folder
            lock = _lock(place)
            if lock is None:  # another process writes
                continue
            try:
                if {entry.name for entry in place.iterdir()} <= {_NEW, _OLD, _GONE}:
                    _settle(place, path, ours)
            finally:
                os.close(lock)


def _settle(temporary: Path, path: Path, ours: Collection[str]) -> None:
    """Removes a temporary folder; what of it has to stay goes to its place before."""
    old = temporary / _OLD
    if old.exists():
        if path.exists():
            _bring_back(old, path, ours)
            old.rename(temporary / _GONE)  # half removed it must not be taken for what was there
        else:
            old.rename(path)
            _to_disk(path.parent)
    shutil.rmtree(temporary)


def _bring_back(source: Path, target: Path, ours: Collection[str]) -> None:
    """Moves what others put into a folder while it was written anew."""
    for here in source.iterdir():
        there = target / here.name
        if _matches(here.name, ours):
            continue
        if not os.path.lexists(there):
            here.rename(there)
        elif here.is_dir() and there.is_dir() and not here.is_symlink():
            _bring_back(here, there, ())


def _take_along(source: Path, target: Path, names: Collection[str]) -> None:
    """Gives a folder, under the same names, what others put into another one, and its mode."""

    def unwanted(folder: str, entries: list[str]) -> set[str]:
        return {*entries} - {*names} if Path(folder) == source else set()

    if names:
        shutil.copytree(source, target, True, unwanted, _link, dirs_exist_ok=True)
        _to_disk(target)
    else:
        shutil.copymode(source, target)


def _link(source: str, target: str) -> None:
    """The same file under another name; a copy where the file system has no such links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders at once; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return int(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _SWAP)) == 0


def _lock(folder: Path) -> int | None:
    """Marks a temporary folder as in use until the process ends; None where it is in use, or nothing can be marked."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def leads_out(name: str) -> str:
    """What is wrong with a path that should name a file in a folder, whatever lies there; nothing if it may.

    Paths of Windows count as what they are there: a table may have been made on another system.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        parts = ()
    if not parts or "\0" in name:
        return f"path {name!r} names no file"
    if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        return f"path {name!r} leads out of the folder"
    return ""


def inside(folder: Path, name: str, where: str) -> Path:
    """The file in a folder that data name: a row of a table, metadata of a recording, a manifest.

    Links are followed as far as they stay in the folder, or lead into one that ``$OMNIBIND_LINKS`` names. The folder
    itself may be a link.

    Args:
        folder: What may not be left.
        name: Path relative to it.
        where: Who says so, for the error: file, and row of it.

    Raises:
        DataError: It names no file, or one elsewhere.
    """
    problem = leads_out(name)
    if not problem:
        path, steps = folder / name, len(PurePosixPath(name).parts)
        if not any(os.path.islink(step) for step in (path, *path.parents)[:steps]):  # noqa: PTH114  # twice as fast
            return path
        real = Path(os.path.realpath(path))
        allowed = [folder, *(expanded(one) for one in os.environ.get(LINKS_VARIABLE, "").split(os.pathsep) if one)]
        if any(real.is_relative_to(os.path.realpath(one)) for one in allowed):
            return path
        problem = f"path {name!r} is a link out of {folder}, expected one inside, or into a folder of ${LINKS_VARIABLE}"
    raise DataError(f"{where}: {problem}")


def expanded(given: str | os.PathLike[str]) -> Path:
    """A path with the home folder for ``~``; as it is where there is no such user."""
    path = Path(given)
    try:
        return path.expanduser()
    except RuntimeError:
        return path
