"""Hooks of mkdocs: documents that lie beside the code they are about become pages of the site, too.

A link such as ``../examples/depth/README.md`` in ``docs/own_modality.md`` leads to the same on the site as it does in
the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
BESIDE = ("examples/depth", "examples/radar", "omnibind_core/weights/lite")
"""Folders whose README is a page."""

_LINK = re.compile(r"(\]\()([^)#\s]+)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the documents, and the files beside them that they name."""
    from mkdocs.structure.files import File

    for folder in BESIDE:
        page = REPO / folder / "README.md"
        named = {match[2] for match in _LINK.finditer(page.read_text(encoding="utf-8"))}
        beside = [page.parent / name for name in sorted(named) if "/" not in name and (page.parent / name).is_file()]
        for path in (page, *beside):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Makes links between ``docs/`` and those documents links on the site."""
    here = page.file.src_uri
    outside = any(here.startswith(f"{folder}/") for folder in BESIDE)
    folder = posixpath.dirname(here if outside else f"docs/{here}")

    def on_site(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if ":" in match[2] or not (REPO / target).is_file():
            return match[0]  # elsewhere, or a mistake, which mkdocs tells
        there = target.removeprefix("docs/")
        return match[1] + posixpath.relpath(there, posixpath.dirname(here) or ".")

    return _LINK.sub(on_site, markdown)
