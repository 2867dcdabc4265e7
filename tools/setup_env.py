"""Makes what the project needs on this machine: ``.venv``, the built ROS 2 messages, the command ``omnibind``.

Idempotent, and quick when nothing changed. Needs nothing but Python itself. ROS 2 comes from a sourced installation of
any distribution (``ROS_DISTRO`` set, rclpy importable), with its Python and its NumPy, else from wheels. Environment
variables that change what is done:

* ``OMNIBIND_ROS``: the distribution to take from wheels, ``jazzy`` or ``kilted``. Default: jazzy, in ``.venv`` and
  ``.ros``; another has folders of its own, ``.venv-kilted`` and ``.ros-kilted``. ``tools/env.sh`` follows it.
* ``PYTHON``: the interpreter to use. Default: the first one found that is supported, or has the installation's rclpy.
* ``TORCH_INDEX_URL``: where PyTorch comes from. Default: the index of CPU builds, where it can be reached.
  ``https://pypi.org/simple`` gives the CUDA build.

Every package from an index must have one of the hashes in ``requirements/lock*.txt``. Not so beside an installed ROS,
where the distribution decides on versions, and of builds of PyTorch that have none there, which is said.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = "jazzy"
WHEELS = (DEFAULT, "kilted")
CHOSEN = os.environ.get("OMNIBIND_ROS") or DEFAULT
SUFFIX = "" if CHOSEN == DEFAULT else f"-{CHOSEN}"
VENV = ROOT / f".venv{SUFFIX}"
BUILD = ROOT / f".ros{SUFFIX}"
STAMP = VENV / "setup.json"
REQUIREMENTS = ROOT / "requirements"

SUPPORTED = ((3, 11), (3, 12), (3, 13))  # those for which every pinned wheel exists; an installation has its own Python
NEEDED_GIB = 6.0  # 3 GiB stay; the rest is for downloads while they are unpacked
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PYPI = "https://pypi.org/simple"  # has the CUDA builds
TORCH_LOCKS = ("lock-torch", "lock-torch-cpu", "lock-cuda")
LOCKED = ("--require-hashes", "--no-deps")  # the lock files name all that is needed
LIBUSB = "libusb-1.0.so.0"
SHOWN_LINES = 15


class SetupError(Exception):
    """A step failed or something is missing; the message is for the user."""


# ---------------------------------------------------------------------------------------------------------- checks


def python_version(python: str) -> tuple[int, int] | None:
    """Returns the version of an interpreter, ``None`` if it cannot be run."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = result.stdout.split()
    return int(major), int(minor)


def find_python(candidates: Iterable[str]) -> str:
    """Returns the first of the candidates, names or paths, that is a supported interpreter; empty if none is.

    Links are followed, so that a virtual environment's python gives the one that it was made from.
    """
    return next((path for path in real_paths(candidates) if python_version(path) in SUPPORTED), "")


def real_paths(candidates: Iterable[str]) -> Iterator[str]:
    """Yields where the programs lie that exist, with links followed."""
    return (os.path.realpath(path) for path in map(shutil.which, candidates) if path)


def candidates() -> list[str]:
    """Returns the interpreters to try, best first."""
    chosen = os.environ.get("PYTHON")
    return [chosen] if chosen else [sys.executable, "python3", "python3.12", "python3.11", "python3.13"]


def find_installation(candidates: Iterable[str]) -> str:
    """Returns the first of the candidates that imports rclpy of a sourced ROS 2 installation; empty if none does."""
    if not os.environ.get("ROS_DISTRO"):
        return ""

    def imports_rclpy(python: str) -> bool:
        try:
            return subprocess.run([python, "-c", "import rclpy"], capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    return next(filter(imports_rclpy, real_paths(candidates)), "")


def choose() -> tuple[str, str]:
    """Returns the interpreter, empty if none fits, and the installed distribution that is sourced, empty for wheels.

    Raises:
        SetupError: Another distribution was asked for than there is.
    """
    python = find_installation(candidates())
    ros = os.environ["ROS_DISTRO"] if python else ""
    asked = os.environ.get("OMNIBIND_ROS")
    if ros and asked and asked != ros:
        raise SetupError(f"ROS 2 {asked} was asked for, but {ros} is sourced: take a new shell, or leave ROS= out")
    if not ros and CHOSEN not in WHEELS:
        raise SetupError(f"no wheels of ROS 2 {CHOSEN}, only of {', '.join(WHEELS)}: install and source it")
    return python or find_python(candidates()), ros


def check_python(python: str) -> str | None:
    """Returns what is wrong with the interpreter, in one line, or ``None``."""
    versions = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
    if not python:
        found = ", ".join(f"{name} ({_version_text(name)})" for name in candidates() if shutil.which(name)) or "none"
        return (
            f"Python {versions} needed, found: {found}. Ubuntu 24.04: sudo apt install python3.12 python3.12-venv "
            "python3.12-dev; Debian 12: the same with 3.11"
        )
    code = "import venv, ensurepip, sysconfig, os; print(os.path.exists(sysconfig.get_path('include') + '/Python.h'))"
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return f"{python} lacks venv or ensurepip. Debian/Ubuntu: sudo apt install {_package(python)}-venv"
    if result.stdout.strip() != "True":
        return f"{python} lacks its C headers (Python.h). Debian/Ubuntu: sudo apt install {_package(python)}-dev"
    return None


def check_tools(ros: str) -> list[str]:
    """Returns one line for each missing tool, naming what to install."""
    needed = [
        (("cc", "gcc", "clang"), "C compiler", "build-essential"),
        (("c++", "g++", "clang++"), "C++ compiler", "build-essential"),
        (("make",), "make", "build-essential"),
        (("cmake",), "cmake", "cmake"),
    ]
    if ros:
        needed.append((("colcon",), "colcon", "python3-colcon-common-extensions"))
    return [
        f"{what} not found (looked for {', '.join(names)}). Debian/Ubuntu: sudo apt install {package}"
        for names, what, package in needed
        if not any(map(shutil.which, names))
    ]


def check_platform(ros: str) -> str | None:
    """Returns a line if ROS 2 must come from wheels and there are none for this machine."""
    machine = os.uname()
    if ros or (machine.sysname, machine.machine) == ("Linux", "x86_64"):
        return None
    return (
        f"no ROS 2 wheels for {machine.sysname} {machine.machine} (only Linux x86_64): install ROS 2 and source "
        "it (source /opt/ros/jazzy/setup.bash), or use the library alone: pip install ."
    )


def check_disk(folder: Path, needed_gib: float = NEEDED_GIB) -> str | None:
    """Returns a line if the folder's file system has too little space."""
    free = shutil.disk_usage(folder).free / 2**30
    if free >= needed_gib:
        return None
    return f"{needed_gib:.1f} GiB of free disk space in {folder}, found {free:.1f} GiB: free some, or clone elsewhere"


def check(python: str, ros: str, fresh: bool) -> None:
    """Checks the machine.

    Args:
        python: The interpreter; empty if none was found.
        ros: The installed distribution that is sourced; empty if ROS 2 comes from wheels.
        fresh: Whether everything has still to be installed.

    Raises:
        SetupError: Something is missing; one line for each thing.
    """
    problems = [check_python(python), *check_tools(ros), check_platform(ros), check_disk(ROOT) if fresh else None]
    lines = [line for line in problems if line]
    if lines:
        raise SetupError("\n".join(f"missing: {line}" for line in lines))


def _version_text(python: str) -> str:
    version = python_version(python)
    return ".".join(map(str, version)) if version else "does not run"


def _package(python: str) -> str:
    version = python_version(python)
    return f"python{version[0]}.{version[1]}" if version else "python3"


# ----------------------------------------------------------------------------------------------------------- steps


def run(command: list[str], log: str, env: dict[str, str] | None = None) -> None:
    """Runs a command with its output in a log file.

    Raises:
        SetupError: The command failed; the message ends with the log's last lines.
    """
    path = BUILD / "log" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        result = subprocess.run(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if result.returncode != 0:
        tail = "\n".join(f"    {line}" for line in path.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
        raise SetupError(f"the last lines of {path.relative_to(ROOT)}:\n{tail}")


def pip_install(arguments: list[str], log: str) -> None:
    """Runs pip of the virtual environment. Byte code is left to the first import: much is never imported."""
    command = [str(VENV / "bin/python"), "-m", "pip", "install", "--no-compile", "--disable-pip-version-check"]
    run([*command, "--no-input", *arguments], log, clean_environment())


def clean_environment() -> dict[str, str]:
    """Returns the environment without what another ROS or Python environment put in it."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH"}
    dropped |= {"VIRTUAL_ENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def make_venv(python: str, ros: str) -> None:
    """Makes an empty virtual environment, replacing one that was made for something else."""
    shutil.rmtree(VENV, ignore_errors=True)
    shutil.rmtree(BUILD / "build", ignore_errors=True)  # holds paths of the old interpreter
    shutil.rmtree(BUILD / "install", ignore_errors=True)
    run([python, "-m", "venv", *(["--system-site-packages"] if ros else []), str(VENV)], "venv")
    (VENV / "COLCON_IGNORE").touch()


def requirement_files(ros: str) -> list[Path]:
    """Returns the files of what is installed, most of it locked, or what an installation lacks."""
    names = ("robot", "dev") if ros else ("lock", f"lock-{CHOSEN}")
    return [REQUIREMENTS / f"{name}.txt" for name in names]


def installed_numpy() -> str:
    """Returns a requirement that keeps NumPy's major version: the installation's messages are compiled against it.

    Raises:
        SetupError: There is none.
    """
    code = "import numpy; print(numpy.__version__.partition('.')[0])"
    result = subprocess.run([str(VENV / "bin/python"), "-c", code], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError("the sourced ROS 2 has no NumPy. Debian/Ubuntu: sudo apt install python3-numpy")
    return f"numpy=={result.stdout.strip()}.*"


def install_packages(ros: str, torch_index: str) -> None:
    """Installs the pinned packages; beside a ROS installation, only what it lacks."""
    files = [part for file in requirement_files(ros) for part in ("-r", str(file))]
    if ros:
        pip_install([installed_numpy(), *files], "packages")
    else:
        source = str(REQUIREMENTS / "lock-source.txt")
        pip_install([*LOCKED, "--only-binary", ":all:", *files], "packages")
        # Isolated builds would take a setuptools that nobody has checked.
        pip_install([*LOCKED, "--use-pep517", "--no-build-isolation", "-r", source], "source")
        install_torch(torch_index)
        fix_include_paths()
    pip_install(["--no-deps", "-r", str(REQUIREMENTS / "weights.txt")], "weights")


def install_torch(index: str) -> None:
    """Installs PyTorch, last, so that an index of its own serves nothing else but what a build of its own needs.

    Args:
        index: Where it comes from; empty: from pip's own indices, a CPU build where they have one.
    """
    pypi, cpu, cuda = (REQUIREMENTS / f"{name}.txt" for name in TORCH_LOCKS)
    more = ["--extra-index-url", index] if index else []
    tag = f"{output_of('import sys; print(*sys.version_info[:2], sep=str())')}-{os.uname().machine}"
    known = re.search(rf"^#.* cp{tag}=", cpu.read_text()) is not None
    if index not in ("", PYPI) and not (index == TORCH_CPU_INDEX and known):
        requirement = next(line.split()[0] for line in pypi.read_text().splitlines() if line.startswith("torch=="))
        print(f"no hash is known of PyTorch for cp{tag} from {index}: it is not checked", end=" ... ", flush=True)
        pip_install([requirement, *more], "torch")
        return
    if known and index != PYPI:
        try:
            pip_install([*LOCKED, "-r", str(cpu), *more], "torch")
            return
        except SetupError as error:
            if index or "No matching distribution" not in str(error):
                raise
    pip_install([*LOCKED, "-r", str(pypi), *more], "torch")
    pip_install([*LOCKED, "-r", str(cuda)], "cuda")


def output_of(code: str) -> str:
    """Returns what a line of Python prints in the virtual environment."""
    command = [str(VENV / "bin/python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def cpu_index() -> str:
    """Returns the package index of PyTorch's CPU builds if it answers; else nothing, and pip's own indices serve."""
    try:
        with urllib.request.urlopen(f"{TORCH_CPU_INDEX}/torch/", timeout=5):
            return TORCH_CPU_INDEX
    except OSError:
        return ""


def fix_include_paths() -> None:
    """Corrects the include folders in the wheels' CMake files: they name those of the machine that built the wheels."""
    code = "import sysconfig, numpy; print(sysconfig.get_path('include')); print(numpy.get_include())"
    python_include, numpy_include = output_of(code).split("\n")[:2]
    for file in (VENV / "share").rglob("*.cmake"):
        text = file.read_text(errors="surrogateescape")
        fixed = re.sub(r"/opt/python/cp\d+-cp\d+t?/include/python3\.\d+t?", python_include, text)
        fixed = re.sub(r"/[^;\"\s]*site-packages/numpy/_core/include", numpy_include, fixed)
        if fixed != text:
            file.write_text(fixed, errors="surrogateescape")


def libusb_missing() -> bool:
    """Tells whether the system library that the open3d wheel loads is neither installed nor fetched."""
    try:
        ctypes.CDLL(LIBUSB)
    except OSError:
        return not (VENV / "lib" / LIBUSB).exists()
    return False


def fetch_libusb() -> None:
    """Puts libusb into the virtual environment, without root.

    Raises:
        SetupError: It cannot be had.
    """
    try:
        tree = fetch_debian("libusb-1.0-0", VENV / "debian")
        found = sorted(tree.glob(f"usr/lib/*/{LIBUSB}*"))
        if not found:
            raise SetupError(f"no {LIBUSB} in the package")
    except SetupError as error:
        raise SetupError(
            f"without {LIBUSB} open3d (meshes, ray casting) cannot be used: install libusb 1.0; {error}"
        ) from error
    for file in found:
        shutil.copy2(file, VENV / "lib", follow_symlinks=False)


def wordnet_missing() -> bool:
    """Tells whether the dictionary of the label matching is neither installed nor in the library's cache."""
    own = os.environ.get("OMNIBIND_CACHE")
    cache = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omnibind"
    roots = (Path("/"), cache / "debian" / "wordnet-base")
    return not any((root / "usr/share/wordnet/data.noun").exists() for root in roots)


def fetch_wordnet() -> None:
    """Puts WordNet into the library's cache, without root.

    Raises:
        SetupError: It cannot be had.
    """
    try:
        fetch_debian("wordnet-base")
    except SetupError as error:
        raise SetupError(f"without WordNet labels are matched by names and embeddings alone; {error}") from error


def fetch_debian(package: str, folder: Path | None = None) -> Path:
    """The files of a Debian package, through the library's own code.

    Raises:
        SetupError: It cannot be had.
    """
    code = (
        "import sys; from pathlib import Path; from omnibind_core.data.debian import fetch_package; "
        "print(fetch_package(sys.argv[1], *map(Path, sys.argv[2:])))"
    )
    command = [str(VENV / "bin/python"), "-c", code, package, *([] if folder is None else [str(folder)])]
    env = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError((result.stderr.strip().splitlines() or ["no reason given"])[-1].split("Error: ")[-1])
    return Path(result.stdout.strip())


def build_package(python: str, ros: str) -> None:
    """Builds the messages and the package with colcon, the package as symbolic links to the sources."""
    shutil.rmtree(BUILD / "install", ignore_errors=True)  # links to files that are gone
    interpreter = python if ros else str(VENV / "bin/python")
    env = dict(os.environ) if ros else clean_environment()
    env["PYTHONSAFEPATH"] = "1"
    if not ros:
        env["PATH"] = os.pathsep.join([str(VENV / "bin"), env.get("PATH", os.defpath)])
        env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(VENV)
    command = [
        "colcon",
        "--log-base",
        str(BUILD / "log/colcon"),
        "build",
        "--symlink-install",
        "--base-paths",
        str(ROOT),
    ]
    command += ["--build-base", str(BUILD / "build"), "--install-base", str(BUILD / "install"), "--cmake-args"]
    command += [f"-DPython3_EXECUTABLE={interpreter}", f"-DPYTHON_EXECUTABLE={interpreter}"]
    # The wheels bring what registers the tests; an installation may lack it.
    run([*command, "-DCMAKE_BUILD_TYPE=Release", f"-DBUILD_TESTING={'OFF' if ros else 'ON'}"], "build", env)


# ---------------------------------------------------------------------------------------------------------- stamps


def digest(files: Iterable[Path], names: Iterable[Path] = ()) -> str:
    """Returns a hash of the contents of some files and of the names of others."""
    result = hashlib.sha256()
    for file in sorted(files):
        result.update(file.name.encode() + b"\0" + file.read_bytes())
    for name in sorted(names):
        result.update(str(name.relative_to(ROOT)).encode() + b"\0")
    return result.hexdigest()


def package_files() -> list[Path]:
    """Returns the files that the package installs; they are linked, so only their names matter."""
    folders = [*ROOT.glob("omnibind_*"), ROOT / "launch", ROOT / "config", ROOT / "bin"]
    files = (file for folder in folders if folder.is_dir() for file in folder.rglob("*"))
    return [file for file in files if "__pycache__" not in file.parts and file.is_file()]


def wanted_stamp(python: str, ros: str, torch_index: str | None) -> dict[str, Any]:
    """Returns what the set-up depends on, one entry per step that it triggers."""
    others = ("weights", *(() if ros else ("lock-source", *TORCH_LOCKS)))
    interface = [*ROOT.glob("msg/*.msg"), ROOT / "CMakeLists.txt", ROOT / "package.xml"]
    return {
        "venv": [str(VENV), python, ros or False, torch_index],
        "packages": digest([*requirement_files(ros), *(REQUIREMENTS / f"{name}.txt" for name in others)]),
        "build": digest(interface, package_files()),
        "omnibind": digest([ROOT / "pyproject.toml"]),
    }


def read_stamp() -> dict[str, Any]:
    """Returns the stamp of the last set-up; empty if there was none or it was cut off."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def write_stamp(stamp: dict[str, Any]) -> None:
    """Writes down which steps are done."""
    if VENV.is_dir():
        STAMP.write_text(json.dumps(stamp, indent=1))


@contextmanager
def only_one() -> Iterator[None]:
    """Lets a second set-up in the same folder wait for the first."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def step(title: str, action: Callable[[], None]) -> None:
    """Runs one step and prints its line."""
    print(f"  {title} ...", end=" ", flush=True)
    start = time.monotonic()
    try:
        action()
    except SetupError:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - start:.1f} s", flush=True)


def set_up(python: str, ros: str) -> None:
    """Runs the steps that are not up to date; see :func:`check` for the arguments.

    Raises:
        SetupError: Something is missing, or a step failed.
    """
    done = read_stamp()
    # A later call without TORCH_INDEX_URL keeps what an earlier one chose.
    torch_index = os.environ.get("TORCH_INDEX_URL") or done.get("venv", [None])[-1]
    wanted = wanted_stamp(python, ros, torch_index)
    stale = {name for name, value in wanted.items() if done.get(name) != value}
    if "venv" in stale or not (VENV / "bin/python").exists():
        stale = set(wanted)
    if not (BUILD / "install").is_dir():
        stale.add("build")
    if stale:
        check(python, ros, fresh="venv" in stale)

    def finish(name: str) -> None:
        stale.remove(name)
        write_stamp({key: value for key, value in wanted.items() if key not in stale})

    # Steps that are still to come stay out of the stamp, so that one cut off is done again.
    write_stamp({key: value for key, value in done.items() if key not in stale})
    if "venv" in stale:
        step("virtual environment", lambda: make_venv(python, ros))
        finish("venv")
    if "packages" in stale:
        step("packages (minutes when new)", lambda: install_packages(ros, torch_index or cpu_index()))
        finish("packages")
    extras = [("libusb for open3d", libusb_missing, fetch_libusb), ("WordNet", wordnet_missing, fetch_wordnet)]
    for title, missing, fetch in extras:
        if missing():
            try:
                step(title, fetch)
            except SetupError as error:
                print(f"warning: {error}")
    if "build" in stale:
        step("ROS 2 messages and package", lambda: build_package(python, ros))
        finish("build")
    if "omnibind" in stale:
        step(
            "omnibind command", lambda: pip_install(["--no-deps", "--no-build-isolation", "-e", str(ROOT)], "omnibind")
        )
        finish("omnibind")


def main() -> int:
    """Sets up; returns 0 if all is well."""
    start = time.monotonic()
    try:
        python, ros = choose()
        with only_one():
            set_up(python, ros)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"set-up complete ({time.monotonic() - start:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
