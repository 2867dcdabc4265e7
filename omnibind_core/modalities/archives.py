"""NumPy's archives (``.npz``), whose headers may claim any size and whose few bytes may unpack to many."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from omnibind_core.errors import InvalidInputError

MOST_BYTES = 1 << 30
"""That the arrays of an archive may take together."""


def check_archive(path: Path, expected: str) -> None:
    """Checks what an archive claims, before anything is allocated for it.

    Args:
        path: The file.
        expected: What is accepted, for the error message.

    Raises:
        InvalidInputError: It is no archive, claims more than it holds, or unpacks to more than :data:`MOST_BYTES`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = sum(member.file_size for member in archive.infolist())
            if held > MOST_BYTES:
                found = f"an archive that unpacks to {held} bytes"
                raise InvalidInputError(str(path), found, f"at most {MOST_BYTES} bytes")
            for member in archive.infolist():
                _check_claim(archive, member, str(path))
    except InvalidInputError:
        raise
    except Exception as error:  # a damaged file makes zipfile, zlib and NumPy raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInputError(str(path), f"a file that NumPy cannot read ({reason})", expected) from error


def _check_claim(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str) -> None:
    """Refuses an array whose header claims more bytes than the archive says that it has."""
    with archive.open(member) as file:
        if file.read(6) != np.lib.format.MAGIC_PREFIX:
            return  # whatever it is, NumPy gives its bytes
        file.seek(0)
        claimed = _claimed(file)
    if claimed > member.file_size:
        found = f"{member.filename} of {claimed} bytes in {member.file_size}"
        raise InvalidInputError(source, found, "an archive that holds what it claims")


def check_array(path: Path, expected: str) -> None:
    """Checks what the header of an array file (``.npy``) claims, before anything is allocated for it.

    Args:
        path: The file; one that is none is for NumPy to refuse.
        expected: What is accepted, for the error message.

    Raises:
        InvalidInputError: It claims more bytes than it has.
    """
    with path.open("rb") as file:
        if file.read(6) != np.lib.format.MAGIC_PREFIX:
            return
        file.seek(0)
        try:
            claimed = _claimed(file)
        except Exception as error:  # a header is parsed as Python: almost anything is raised
            raise InvalidInputError(str(path), f"a file that NumPy cannot read ({error})", expected) from error
    held = path.stat().st_size
    if claimed > held:
        raise InvalidInputError(str(path), f"an array of {claimed} bytes in a file of {held}", expected)


def _claimed(file: IO[bytes]) -> int:
    """Bytes of the array that a header at the beginning of a file describes; the file stands behind it then."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize  # NumPy unpickles none, and says so if asked
