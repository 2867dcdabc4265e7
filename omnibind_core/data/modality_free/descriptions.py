"""Descriptions of samples, for sample-level matching: from a table, a template, or a captioning model."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.errors import ConfigError, DataError, InvalidInputError
from omnibind_core.files import write_atomically
from omnibind_core.optional import require

COLUMNS = ("id", "description")
TEMPLATE = "a {label}"


def read_descriptions(path: Path) -> dict[str, str]:
    """Reads a CSV with the columns ``id,description``.

    Raises:
        DataError: The file is missing or no such table, a row is empty, or an id occurs twice; names the line.
    """
    return {name: row["description"] for name, row in _read_table(path, COLUMNS, exactly=True).items()}


def read_attributes(path: Path) -> dict[str, dict[str, str]]:
    """Reads a CSV with the column ``id`` and one column per attribute: sample id to attribute to value.

    Raises:
        DataError: As :func:`read_descriptions`.
    """
    return _read_table(path, COLUMNS[:1], exactly=False)


def write_descriptions(path: Path, descriptions: Mapping[str, str]) -> None:
    """Writes the table that :func:`read_descriptions` reads, so that captions are computed once."""
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(descriptions.items())


def describe(
    samples: Iterable[Sample],
    template: str = TEMPLATE,
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    concepts: Concepts | None = None,
) -> dict[str, str]:
    """Descriptions made of what is known about each sample.

    Args:
        samples: To describe.
        template: Python format string; knows ``{label}``, ``{concept}`` (if ``concepts`` is given), ``{modality}``,
            ``{source}``, and every attribute: ``"a {colour} {label}"``.
        attributes: Sample id to attribute to value.
        concepts: Label matching.

    Raises:
        ConfigError: The template is no format string.
        DataError: A sample lacks a value that the template names; says which, and how many others have all.
    """
    result: dict[str, str] = {}
    lacking: list[tuple[str, str]] = []
    for sample in samples:
        values = {"label": sample.label.replace("_", " "), "modality": sample.modality, "source": sample.source}
        if concepts is not None:
            values["concept"] = concepts.of(sample)
        values.update((attributes or {}).get(sample.id, {}))
        try:
            result[sample.id] = template.format_map(values)
        except KeyError as error:
            lacking.append((sample.id, str(error.args[0])))
        except (ValueError, IndexError, AttributeError, TypeError) as error:
            raise ConfigError(f"template '{template}' is no format string such as '{TEMPLATE}': {error}") from error
    if lacking:
        name, key = lacking[0]
        raise DataError(f"sample '{name}' has no '{key}', which the template names; {len(result)} others have all")
    return result


class Captioner:
    """An image captioning model of the ``transformers`` library in a local folder; nothing is downloaded.

    Args:
        folder: Holds ``config.json``, weights, and the files of the image processor and tokeniser, as written by
            ``save_pretrained``.
        device: Where it runs.
        max_tokens: Longest caption.

    Raises:
        DataError: The folder is missing or holds no captioning model.
        MissingDependencyError: transformers is not installed.
    """

    def __init__(self, folder: Path, device: str = "cpu", max_tokens: int = 30) -> None:
        transformers = require("transformers", "Captioning images")
        if not (folder / "config.json").is_file():
            raise DataError(
                f"no captioning model in {folder}: expected a folder with config.json written by transformers"
            )
        try:
            self._images: Any = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise DataError(f"cannot read the captioning model in {folder}: {error}") from error
        self._model = model.to(device).eval()
        self._device = device
        self._max_tokens = max_tokens

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[str]:
        """Captions, greedy and so the same every time.

        Args:
            images: RGB, ``uint8 [H, W, 3]``, any size.

        Raises:
            InvalidInputError: One is no such array.
        """
        import torch

        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise InvalidInputError("captioner", f"{image.dtype} {image.shape}", "an RGB image uint8 [H, W, 3]")
        if not images:
            return []
        pixels = self._images(images=list(images), return_tensors="pt", input_data_format="channels_last")
        with torch.inference_mode():
            tokens = self._model.generate(
                pixel_values=pixels["pixel_values"].to(self._device),
                max_new_tokens=self._max_tokens,
                do_sample=False,
                num_beams=1,
            )
        return [text.strip() for text in self._tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def _read_table(path: Path, required: Sequence[str], *, exactly: bool) -> dict[str, dict[str, str]]:
    """Rows by id."""
    if not path.is_file():
        raise DataError(f"no table {path}: expected a CSV with the column(s) {','.join(required)}")
    rows: dict[str, dict[str, str]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if not set(required) <= set(columns) or (exactly and set(columns) != set(required)):
                raise DataError(
                    f"{path} has the columns {','.join(columns) or '(none)'}, expected {','.join(required)}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                values = {column: (row[column] or "").strip() for column in columns}
                name = values.pop("id")
                if None in row or not all(values.values()) or not name:
                    raise DataError(
                        f"{where}: expected a value for each of {','.join(columns)}; {len(rows)} rows are fine"
                    )
                if name in rows:
                    raise DataError(f"{where}: id '{name}' occurs twice; {len(rows)} rows are fine")
                rows[name] = values
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no CSV table in UTF-8: {error}") from error
    return rows
