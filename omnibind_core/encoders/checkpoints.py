"""Weight files of others, opened without running code in them and read tensor by tensor.

Names, shapes and types are known as soon as a file is open; the values stay on the disk until a tensor is asked for,
and are mapped into memory then, not copied.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from omnibind_core.config import from_json
from omnibind_core.errors import WeightsError

_logger = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
"""File of a folder whose tensors are spread over several files."""

_TORCH = (".pth", ".pt", ".bin", ".ckpt")
_INDICES = (INDEX, "open_clip_model.safetensors.index.json", "pytorch_model.bin.index.json")
# The names that tools write, the safe format first.
_USUAL = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "base_model")  # what training scripts put the tensors under
_EXPECTED = f"a safetensors file, a PyTorch file ({', '.join(_TORCH)}), or a folder that holds one"
_SAMPLED = 32  # values of each tensor that a fingerprint rests on


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a weights file by name; looking one up maps it into memory.

    Args:
        path: The file or folder, for messages.
        spec: An empty tensor (device ``meta``) of the shape and type of each.
        read: Reads one.
        licence: What the file says of its licence itself; empty if it says nothing.
    """

    def __init__(
        self, path: Path, spec: Mapping[str, Tensor], read: Callable[[str], Tensor], licence: str = ""
    ) -> None:
        self.path = path
        self.licence = licence
        self.spec = dict(spec)
        self._read = read

    @property
    def listing(self) -> Checkpoint:
        """The same names with empty tensors, for everything that asks for shapes and types only."""
        return Checkpoint(self.path, self.spec, self.spec.__getitem__, self.licence)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.spec:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self.spec  # that of Mapping would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.spec)

    def __len__(self) -> int:
        return len(self.spec)


def open_checkpoint(source: str | Path, verify: bool = False) -> Checkpoint:
    """Opens a weights file, or the one in a folder.

    Args:
        source: A safetensors file; a file of ``torch.save``; a folder with one of them, or with several and an index.
            What a training script saved beside the tensors is left out, as is the ``module.`` that data-parallel
            training puts before every name.
        verify: Whether to read all of it and compare it with its check sums, which a file of ``torch.save`` has and a
            safetensors file has not.

    Raises:
        WeightsError: Missing, truncated, of another format, compressed, damaged as far as that was looked at, or a
            pickle that would run code; says what was found and what was expected.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        file = _file_in(path)
        if file.name.endswith(".index.json"):
            return _sharded(path, file, verify)
    elif path.is_file():
        file = path
    else:
        raise WeightsError(f"{path}: no such file or folder, expected {_EXPECTED}")
    return _file(file, verify)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Short hash of names, types, shapes and some values of every tensor: tells one training of a network from another.

    It takes milliseconds where a hash of all values would read gigabytes.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        flat = tensor.reshape(-1) if tensor.is_contiguous() else tensor.contiguous().reshape(-1)
        chosen = torch.linspace(0, max(len(flat) - 1, 0), min(_SAMPLED, len(flat)), dtype=torch.float64).long()
        values = flat[chosen.to(flat.device)].cpu().view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(bytes(values.tolist()))
    return digest.hexdigest()[:16]


def _file_in(folder: Path) -> Path:
    for name in (*_INDICES, *_USUAL):
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", *_TORCH))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise WeightsError(f"{folder}: weights files found: {names}; expected exactly one, or {', '.join(_USUAL)}")


def _file(path: Path, verify: bool) -> Checkpoint:
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.suffix in _TORCH:
        return _torch(path, verify)
    raise WeightsError(f"{path}: ends in '{path.suffix}', expected {_EXPECTED}")


def _safetensors(path: Path) -> Checkpoint:
    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: {path.stat().st_size} bytes that are not a whole safetensors file: {error}"
        ) from error
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    unsupported = next((x.get_dtype() for x in slices.values() if x.get_dtype() not in _SAFETENSORS_TYPES), None)
    if unsupported is not None:
        raise WeightsError(f"{path}: holds tensors of type {unsupported}, expected {', '.join(_SAFETENSORS_TYPES)}")
    spec = {
        name: torch.empty(found.get_shape(), dtype=_SAFETENSORS_TYPES[found.get_dtype()], device="meta")
        for name, found in slices.items()
    }
    return _without_wrapping(path, spec, file.get_tensor, (file.metadata() or {}).get("licence", ""))


_SAFETENSORS_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _torch(path: Path, verify: bool) -> Checkpoint:
    expected = "tensors as torch.save writes them"
    entries, summed, damaged = [], True, None
    try:
        if is_whole := zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
                summed = any(entry.CRC for entry in entries)  # torch.serialization.set_crc32_options(False)
                damaged = archive.testzip() if verify and summed else None
    except Exception as error:  # a damaged file makes zipfile raise almost anything
        raise WeightsError(f"{path}: not a whole PyTorch file, expected {expected}: {error}") from error
    if not is_whole:
        hint = "truncated, or written before PyTorch 1.6 (then load it and save it again)"
        raise WeightsError(f"{path}: {path.stat().st_size} bytes that are not a whole PyTorch file: {hint}")
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise WeightsError(
            f"{path}: a TorchScript archive, which is a program; expected {expected}. If you trust it, "
            "torch.save(torch.jit.load(path).state_dict(), other_path) makes one"
        )
    packed = next((entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:  # a memory map would take the compressed bytes for numbers
        raise WeightsError(
            f"{path}: '{packed}' in it is compressed, expected {expected}, which are not: it was zipped again. "
            "torch.save(torch.load(path, weights_only=True, mmap=False), other_path) makes one"
        )
    if verify and not summed:
        _logger.warning("%s was saved without check sums: whether it is damaged cannot be said", path)
    if damaged is not None:
        raise WeightsError(f"{path}: damaged: '{damaged}' in it has another check sum than when it was written")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|Unsupported class|Unsupported global:?(?: GLOBAL)?) ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise WeightsError(f"{path}: a pickle that would run code{what}, expected {expected}: not loaded") from error
    except Exception as error:  # a damaged file makes zipfile and the unpickler raise almost anything
        raise WeightsError(f"{path}: not a whole PyTorch file, expected {expected}: {error}") from error
    tensors = _tensors(path, content)
    spec = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    return _without_wrapping(path, spec, tensors.__getitem__)


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors of what ``torch.save`` was given: a state dict, or one inside a training checkpoint."""
    inner = content
    if isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    found = {name: x for name, x in inner.items() if isinstance(x, Tensor)} if isinstance(inner, Mapping) else {}
    if not found:
        keys = f" with {', '.join(map(str, list(inner)[:5]))}" if isinstance(inner, Mapping) else ""
        raise WeightsError(f"{path}: holds a {type(content).__name__}{keys}, expected tensors by name")
    return found


def _sharded(folder: Path, index: Path, verify: bool) -> Checkpoint:
    """Only the headers of the files are read now; a PyTorch file is opened when a tensor in it is asked for."""
    try:
        content = from_json(index.read_text(encoding="utf-8"))
        placed: dict[str, str] = {name: str(file) for name, file in content["weight_map"].items()}
        licence = str(content.get("metadata", {}).get("licence", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "a JSON object with weight_map, the names of files by those of tensors"
        raise WeightsError(f"{index}: not an index of weights files ({error!r}), expected {expected}") from error
    names = sorted(set(placed.values()))
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"{folder} lacks {', '.join(missing)}, which {index.name} names")
    shards = {name: _file(folder / name, verify) for name in names}
    absent = [name for name, file in placed.items() if name not in shards[file]]
    if absent:
        raise WeightsError(f"{folder / placed[absent[0]]} lacks the tensor '{absent[0]}', which {index.name} names")
    spec = {name: shards[file].spec[name] for name, file in placed.items()}
    return Checkpoint(folder, spec, lambda name: shards[placed[name]][name], licence)


def _without_wrapping(
    path: Path, spec: Mapping[str, Tensor], read: Callable[[str], Tensor], licence: str = ""
) -> Checkpoint:
    prefix = "module."
    if not (spec and all(name.startswith(prefix) for name in spec)):
        return Checkpoint(path, spec, read, licence)
    bare = {name.removeprefix(prefix): tensor for name, tensor in spec.items()}
    return Checkpoint(path, bare, lambda name: read(prefix + name), licence)
