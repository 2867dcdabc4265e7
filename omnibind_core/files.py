"""Where computed files are kept, writing that is seen whole or not at all, and paths that stay in their folder.

What is written lies in a temporary folder beside its place, which the process that writes holds by a lock. When that is
killed, whoever writes there next gets the lock, and knows a left-over by it. What it does with one stands in it: if it
has a plan, its files were being put in place one by one, which is finished; otherwise they are of no use.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath

from omnibind_core.errors import DataError

_logger = logging.getLogger(__name__)

_PREFIX = ".omnibind-"  # of a temporary folder: then the name of what it is for, a hyphen and 8 characters
_LONGEST = 236  # bytes of such a name, so that all of it are no more than file systems allow: 255
_MANY = 300  # files, from which on one call for all that the file system has to write is faster than one for each
_NEW, _PLAN, _LOCK = "new", "plan", "used"  # in a temporary folder: what is written, how it gets in place, the lock
_HELD = f"{_PREFIX}lock"  # in a folder that one process has for itself
_WEEK = 7 * 86400.0  # s, after which what cannot be locked is a left-over
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
        yield fresh
        mask = os.umask(0)
        os.umask(mask)
        fresh.chmod(0o666 & ~mask)  # some libraries make it private; the cache may be shared
        _to_disk(fresh)
        fresh.replace(path)
        _to_disk(path.parent)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps other processes from what is done in a folder, until the block or this process ends.

    Args:
        folder: Is created. Where files cannot be locked, as on some network drives, nobody is kept away.

    Raises:
        DataError: Another process is at it.
        OSError: It cannot be created, or not written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock, _ = _locked(folder / _HELD)
    except BlockingIOError as error:
        raise _in_use(folder) from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / _HELD).unlink()
        os.close(lock)


def check_replaceable(path: Path, ours: Collection[str]) -> None:
    """Refuses what :func:`write_folder_atomically` would refuse, before any work was done for it.

    Args:
        path: The folder to write.
        ours: Names, with ``*`` for anything, of files that may be replaced.

    Raises:
        DataError: ``path`` is a file, or a folder that also holds something else.
        PermissionError: This user may not write there.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file: expected an empty folder, or none")
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    foreign = [name for name in _names(path) if not _matches(name, ours)]
    if foreign:
        raise DataError(
            f"{path} holds {', '.join(foreign[:5])}, which would be lost: expected an empty folder, or none"
        )


@contextmanager
def write_folder_atomically(
    path: Path, ours: Collection[str], keep: bool = False, alone: bool = False
) -> Iterator[Path]:
    """Gives a temporary folder whose files replace those of ``path`` when the block ends well, all or none.

    The folders are exchanged at once: whenever the process is killed or the disk is full, what was there before or what
    was written is in place, whole. Where that cannot be (on some network drives, on what an image of a container
    brought, for a mounted folder or the one that is worked in, or where this user may not write beside it), the files
    are put in place one by one, in the order of ``ours``, which a kill can interrupt: :func:`recover`, which every call
    for the same ``path`` begins with, finishes it. A file that tells what the others have to be should therefore be the
    first: until then nobody takes the mixture for whole.

    Args:
        path: The folder to write, or a link to it.
        ours: Names, with ``*`` for anything, of files that may be replaced; those that are not written anew are
            removed.
        keep: Whether everything else that the folder holds stays there, instead of being refused.
        alone: Whether it is refused while another process writes this folder, instead of the last one winning.

    Raises:
        DataError: ``path`` is a file or, unless ``keep``, a folder that also holds something else, or another process
            writes it.
        OSError: There is no room, or this user may not write there.
    """
    path = Path(os.path.realpath(path))
    if recover(path) and alone:
        raise _in_use(path)
    check_replaceable(path, ("*",) if keep else ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as temporary:
        fresh = temporary / _NEW
        yield fresh
        written = sorted(fresh.rglob("*"))
        _all_to_disk(fresh, written)  # so that a name never stands for less than was written
        names = [file.relative_to(fresh).as_posix() for file in written]
        if not _exchanged(fresh, path, ours):
            _plan(temporary, path, names, ours)


def recover(path: Path) -> bool:
    """Puts in order what calls of :func:`write_folder_atomically` for this path left that were killed.

    Returns:
        Whether another one is at work.

    Raises:
        OSError: Files could not be put in place.
    """
    path = Path(os.path.realpath(path))
    found = [clear(path.parent, path.name), clear(path, "")]
    return any(found)


def clear(folder: Path, name: str | None = None) -> bool:
    """Puts in order what writers in a folder left that were killed.

    Args:
        folder: Where they wrote.
        name: Of the file or folder; empty for the folder itself, None for any.

    Returns:
        Whether another one is at work.

    Raises:
        OSError: Files could not be put in place.
    """
    busy = False
    for place in folder.glob(f"{_PREFIX}{'*' if name is None else glob.escape(_short(name))}-????????"):
        try:
            if place.lstat().st_uid != os.geteuid() or not {*_names(place)} <= {_NEW, _PLAN, _LOCK}:
                continue
            lock, sure = _locked(place / _LOCK)
        except BlockingIOError:
            busy = True
            continue
        except OSError:  # of another user, no folder, or gone
            continue
        try:
            if sure:
                _settle(place)
            elif time.time() - place.stat().st_mtime > _WEEK:
                _remove(place)  # its plan may be older than what was put in place since
        finally:
            os.close(lock)
    return busy


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Makes a folder for what will be at a path, and settles it when the block ends.

    It lies beside the path, or in it where nothing can be renamed from there to here.
    """
    inside = path.is_dir() and (os.path.ismount(path) or not os.access(path.parent, os.W_OK | os.X_OK))
    parent, name = (path, "") if inside else (path.parent, path.name)
    while True:
        try:
            place = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_short(name)}-", dir=parent))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error  # what was asked for
        with suppress(BlockingIOError, FileNotFoundError):  # taken for a left-over before it was locked
            lock, _ = _locked(place / _LOCK)
            break
    try:
        (place / _NEW).mkdir()
        yield place
    finally:
        try:
            _settle(place)
        finally:
            os.close(lock)


def _short(name: str) -> str:
    """A name, or of one that is too long for that of a temporary folder its beginning and a hash."""
    data = os.fsencode(name)
    if len(data) <= _LONGEST:
        return name
    end = f"-{hashlib.sha256(data).hexdigest()[:16]}"
    while len(os.fsencode(name + end)) > _LONGEST:
        name = name[:-1]
    return name + end


def _settle(place: Path) -> None:
    """Does what is planned in a temporary folder, and removes it; without a plan, what is there is of no use."""
    try:
        plan = json.loads((place / _PLAN).read_bytes())
    except (OSError, ValueError):  # none, or not whole, so nothing of it was done
        plan = None
    if plan is not None:
        target = place.parent / plan["at"]
        target.mkdir(exist_ok=True)
        for name in plan["drop"]:
            _remove(target / name)
        for name in plan["put"]:
            here, there = place / _NEW / name, target / name
            if _is_folder(here):
                there.mkdir(exist_ok=True)
            elif os.path.lexists(here):  # not put there before a kill
                here.replace(there)
        for name in ("", *plan["put"]):
            if _is_folder(target / name):
                _to_disk(target / name)
        (place / _PLAN).unlink()
    _remove(place)


def _plan(place: Path, path: Path, names: Collection[str], ours: Collection[str]) -> None:
    """Says how the files in a temporary folder get to a path one by one. From then on they will, whoever does it."""

    def rank(name: str) -> tuple[int, str]:
        top = Path(name).parts[0]
        return next((number for number, one in enumerate(ours) if fnmatch(top, one)), len(ours)), name

    mine = [path / name for name in _names(path) if _matches(name, ours)]
    there = {file.relative_to(path).as_posix(): file for top in mine for file in (top, *top.rglob("*"))}
    kept = {name for name in names if name in there and _is_folder(there[name]) == _is_folder(place / _NEW / name)}
    with (place / _PLAN).open("w", encoding="utf-8") as file:
        at = path.relative_to(place.parent).as_posix()
        json.dump({"at": at, "drop": sorted(there.keys() - kept), "put": sorted(names, key=rank)}, file)
    _to_disk(place / _PLAN)
    _to_disk(place)


def _exchanged(fresh: Path, path: Path, ours: Collection[str]) -> bool:
    """Puts a folder in another one's place at once, with what others have in that; False where it cannot be."""
    if not path.exists():
        with suppress(OSError):  # another process was first
            fresh.rename(path)
            _to_disk(path.parent)
            return True
    others = [name for name in _names(path) if not _matches(name, ours)]

    def unwanted(folder: str, entries: list[str]) -> set[str]:
        return {*entries} - {*others} if Path(folder) == path else set()

    try:
        if path in (Path.cwd(), *Path.cwd().parents):  # it would be the old one that is worked in
            return False
        shutil.copytree(path, fresh, True, unwanted, _link, dirs_exist_ok=True)
    except OSError:
        return False
    _to_disk(fresh)
    if not _exchange(fresh, path):
        return False
    _to_disk(path.parent)
    _bring_back(fresh, path, ours)
    return True


def _link(source: str, target: str) -> None:
    """The same file under another name: what is written to one is in the other."""
    os.link(source, target, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders at once; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return int(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _SWAP)) == 0


def _bring_back(source: Path, target: Path, ours: Collection[str]) -> None:
    """Moves what others put into a folder, or replaced there, while it was written anew."""
    for here in source.iterdir():
        there = target / here.name
        with suppress(OSError):
            if _matches(here.name, ours):
                continue
            if _is_folder(here) and _is_folder(there):
                _bring_back(here, there, ())
            elif not os.path.lexists(there) or _later(here.lstat(), there.lstat()):
                here.replace(there)


def _later(one: os.stat_result, other: os.stat_result) -> bool:
    return not os.path.samestat(one, other) and one.st_ctime_ns >= other.st_ctime_ns


def _locked(file: Path) -> tuple[int, bool]:
    """Opens a file for this process alone, until it ends.

    Returns:
        The open file, and whether others are kept away: some file systems know no locks.

    Raises:
        BlockingIOError: Another process has it.
        OSError: There is no such folder, or this user may not write there.
    """
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            sure = _lock(handle)
            with suppress(FileNotFoundError):  # removed by who had it before
                if os.path.samestat(os.fstat(handle), file.stat()):
                    return handle, sure
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        return False
    return True


def _in_use(folder: Path) -> DataError:
    return DataError(f"another process writes {folder}: expected a folder of its own, or that the other one has ended")


def _remove(place: Path) -> None:
    """Removes a file or a folder, whatever its mode; the log tells what stays."""
    try:
        if _is_folder(place):
            if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
                place.chmod(0o700)
            for entry in sorted(place.iterdir()):
                _remove(entry)
            place.rmdir()
        else:
            place.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        _logger.info("%s could not be removed: %s", place, error)


def _to_disk(path: Path) -> None:
    with suppress(OSError) if path.is_dir() else nullcontext():  # some file systems cannot with folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _all_to_disk(folder: Path, entries: Collection[Path]) -> None:
    """The same for a folder and what it holds; many entries by one call for all that their file system has to write."""
    if len(entries) < _MANY or not _system_to_disk(folder):
        for path in (*entries, folder):
            if not path.is_symlink():
                _to_disk(path)


def _system_to_disk(path: Path) -> bool:
    """Writes all that waits of the file system that a path is on; False where the system has no such call.

    Raises:
        OSError: Something could not be written.
    """
    try:
        sync = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError, TypeError):
        if not hasattr(os, "sync"):
            return False
        os.sync()
        return True
    handle = os.open(path, os.O_RDONLY)
    try:
        if sync(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(handle)
    return True


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _names(folder: Path) -> list[str]:
    """What a folder holds, without what is there only while something is written."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if not entry.name.startswith(_PREFIX))


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


def allowed(path: Path) -> bool:
    """Whether a path lies in a folder that ``$OMNIBIND_LINKS`` names, links followed."""
    folders = (expanded(one) for one in os.environ.get(LINKS_VARIABLE, "").split(os.pathsep) if one)
    return any(Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)) for folder in folders)


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
        if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)) or allowed(path):
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
