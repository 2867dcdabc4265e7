"""Where computed files are kept, and writing that is seen whole or not at all."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from omnibind_core.errors import DataError

_NEW, _OLD, _GONE = "new", "old", "gone"  # in a temporary folder: what is written, what it replaces, what is removed
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
    """Gives a temporary path that replaces ``path`` when the block ends well, and is removed when it fails.

    So a half-written file is never seen under its name, not even after a power failure, and of two writers the last one
    wins with a whole file. What killed ones left of the same file is removed.

    Raises:
        OSError: There is no room, or this user may not write there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent, path.name)
    with _temporary(path) as folder:
        fresh = folder / _NEW / path.name
        fresh.parent.mkdir()
        try:
            yield fresh
            mask = os.umask(0)
            os.umask(mask)
            fresh.chmod(0o666 & ~mask)  # some libraries make it private; the cache may be shared
            _to_disk(fresh)
            fresh.replace(path)
            _to_disk(path.parent)
        finally:
            shutil.rmtree(folder)


def clear(folder: Path, name: str | None = None) -> None:
    """Removes what writers of files left in a folder that were killed.

    Args:
        folder: Where they wrote.
        name: Of the file; None: any.
    """
    for place in folder.glob(f".{'*' if name is None else glob.escape(name)}-????????"):
        with suppress(OSError), _left(place, {_NEW}) as is_left:
            if is_left:
                shutil.rmtree(place)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps other processes from what is done in a folder, until the block or this process ends.

    Args:
        folder: Is created. Where folders cannot be marked, as on some network drives, nobody is kept away.

    Raises:
        DataError: Another process is at it.
        OSError: It cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = _lock(folder)
    except BlockingIOError as error:
        raise _in_use(folder) from error
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def stays(path: Path) -> bool:
    """Whether a folder cannot be replaced, or only under the feet of who is in it: it is mounted, or worked in."""
    with suppress(OSError):  # the working folder is gone
        return os.path.ismount(path) or Path.cwd().is_relative_to(path.resolve())
    return False


def check_replaceable(path: Path, ours: Collection[str]) -> None:
    """Refuses what :func:`write_folder_atomically` would refuse, before any work was done for it.

    Args:
        path: The folder to write.
        ours: Names, with ``*`` for anything, of files that may be replaced.

    Raises:
        DataError: ``path`` is a file, a folder that stays, or one that also holds something else.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file: expected an empty folder, or none")
    if stays(path):
        raise DataError(f"{path} is mounted, or what is worked in, so it cannot be replaced: expected a folder in it")
    names = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    foreign = [name for name in names if not _matches(name, ours)]
    if foreign:
        raise DataError(
            f"{path} holds {', '.join(foreign[:5])}, which would be lost: expected an empty folder, or none"
        )


@contextmanager
def write_folder_atomically(
    path: Path, ours: Collection[str], keep: bool = False, alone: bool = False
) -> Iterator[Path]:
    """Gives a temporary folder beside ``path`` that replaces it when the block ends well, and is removed when it fails.

    Whenever the process is killed or the disk is full, what was there before or what was written is in place, whole.
    Where the file system cannot exchange two folders at once, a kill between two renames leaves what was there under
    another name, and the next call for the same ``path`` puts it back, as it removes what killed ones left.

    Args:
        path: The folder to write. If there is one already, it is replaced; the folder itself, not a link to it.
        ours: Names, with ``*`` for anything, of files that may be replaced.
        keep: Whether everything else that the folder holds stays there, instead of being refused.
        alone: Whether it is refused while another process writes this folder, instead of the last one winning.

    Raises:
        DataError: ``path`` is a file or a folder that :func:`stays`, or, unless ``keep``, a folder that also holds
            something else, or another process writes it.
    """
    path = Path(os.path.realpath(path))
    if recover(path, ours) and alone:
        raise _in_use(path)
    check_replaceable(path, ("*",) if keep else ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as temporary:
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
            _settle(temporary, path, ours)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Makes a folder beside a path, and marks it as in use by this process."""
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error  # what was asked for
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):  # taken for a left-over before it was marked
            continue
        if folder.exists():
            break
    try:
        yield folder
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def _left(place: Path, names: Collection[str]) -> Iterator[bool]:
    """Whether a temporary folder was left by a process that was killed; it is kept from others in the block.

    Raises:
        BlockingIOError: A process uses it.
        OSError: It is of another user, or no folder.
    """
    lock = _lock(place)
    try:
        ours = (*names, f".{_NEW}-????????")  # the last if the new folder itself was written as one
        yield lock is not None and all(_matches(entry.name, ours) for entry in place.iterdir())
    finally:
        if lock is not None:
            os.close(lock)


def recover(path: Path, ours: Collection[str]) -> bool:
    """Puts in order what calls of :func:`write_folder_atomically` for this path left that were killed.

    Each call does so by itself.

    Returns:
        Whether another one is at work.
    """
    path = Path(os.path.realpath(path))
    busy = False
    for place in path.parent.glob(f".{glob.escape(path.name)}-????????"):
        try:
            with _left(place, {_NEW, _OLD, _GONE}) as is_left:
                if is_left:
                    _settle(place, path, ours)
        except BlockingIOError:
            busy = True
        except OSError:  # of another user, or no folder
            continue
    return busy


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
    """Marks a folder as in use until the process ends; None where nothing can be marked.

    Raises:
        BlockingIOError: It is in use.
        OSError: It is of another user, or no folder.
    """
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return handle


def _in_use(folder: Path) -> DataError:
    return DataError(f"another process writes {folder}: expected a folder of its own, or that the other one has ended")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def expanded(given: str | os.PathLike[str]) -> Path:
    """A path with the home folder for ``~``; as it is where there is no such user."""
    path = Path(given)
    try:
        return path.expanduser()
    except RuntimeError:
        return path
