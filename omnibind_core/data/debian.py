"""Files out of Debian and Ubuntu packages, without installing them and without root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omnibind_core.errors import DataError
from omnibind_core.files import cache_folder, write_folder_atomically

_TIMEOUT = 600.0


def fetch_package(name: str, cache_dir: Path | None = None) -> Path:
    """Makes the files of a Debian package readable, downloading it if need be.

    An installed package is used where it is. Otherwise it is downloaded by ``apt-get download`` and unpacked by
    ``dpkg-deb -x`` into ``cache_dir/<name>``; once there, no network and no apt is needed.

    Args:
        name: Package name, for example ``"wordnet-base"``.
        cache_dir: Where to unpack; ``None`` is ``cache_folder() / "debian"``.

    Returns:
        The root folder of the package's files: its ``usr/share/...`` lies below it. ``/`` if it is installed.

    Raises:
        DataError: apt or dpkg are missing, the package is unknown to apt, or the download failed.
    """
    cache_dir = cache_folder() / "debian" if cache_dir is None else cache_dir
    target = cache_dir / name
    if target.is_dir():
        return target
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DataError(
                f"package '{name}' is needed and '{tool}' is missing: on Debian or Ubuntu install apt and dpkg, "
                f"elsewhere unpack the package into {target}"
            )
    if _run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name]).stdout.strip() == "installed":
        return Path("/")
    with write_folder_atomically(target, ("*",)) as tree:  # a half-unpacked package is never seen under its name
        with tempfile.TemporaryDirectory(dir=tree) as work:
            archive = _download(name, Path(work))
            unpacked = _run(["dpkg-deb", "-x", str(archive), str(tree)])
        if unpacked.returncode != 0:
            raise DataError(f"cannot unpack {archive.name}: {_last_line(unpacked.stderr)}")
    return target


def _download(name: str, folder: Path) -> Path:
    result = _run(["apt-get", "download", name], folder)
    if not list(folder.glob("*.deb")) and os.geteuid() == 0:
        _run(["apt-get", "update"])
        result = _run(["apt-get", "download", name], folder)
    archives = sorted(folder.glob("*.deb"))
    if not archives:
        hint = "" if os.geteuid() == 0 else "; if the package lists are missing, run 'sudo apt-get update' once"
        raise DataError(f"cannot download the package '{name}': {_last_line(result.stderr)}{hint}")
    return archives[0]


def _run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"'{' '.join(command)}' did not finish within {_TIMEOUT:.0f} s") from error


def _last_line(text: str) -> str:
    errors = [line for line in text.splitlines() if line.startswith("E:")] or text.strip().splitlines()
    return errors[-1] if errors else "no reason given"
