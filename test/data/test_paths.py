"""Paths in tables of data never leave the folder: the choke point, and each kind of table."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from omnibind_core.data import sources
from omnibind_core.data.sources.base import BUILT_IN, Source
from omnibind_core.errors import DataError
from omnibind_core.files import inside, leads_out

CLIMBING = (
    "..",
    "../secret.png",
    "a/../../secret.png",
    "/etc/passwd",
    "//host/share/x",
    "C:\\secret.png",
    "c:secret.png",
    "\\\\host\\share\\x",
    "\\secret.png",
    "..\\secret.png",
    "a\\..\\..\\secret.png",
)
NO_FILE = ("", ".", "./", "a\0b", "\ud800")


@pytest.mark.parametrize("name", [*CLIMBING, *NO_FILE])
def test_names_that_leave_a_folder_or_name_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        inside(tmp_path, name, "samples.csv, line 7")
    said = "names no file" if name in NO_FILE else "leads out of the folder"
    assert str(caught.value) == f"samples.csv, line 7: path {name!r} {said}"


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "..a/b..", "a b/ü:1.png", "a/./b", "a\\b.png", "~/a"])
def test_names_that_stay(name: str, tmp_path: Path) -> None:
    assert not leads_out(name)
    assert inside(tmp_path, name, "") == tmp_path / name


def test_links_stay_in_the_folder_or_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    for folder in (root / "inner", disk / "deep", tmp_path / "disk2"):
        folder.mkdir(parents=True)
        (folder / "x").write_text("")
    (tmp_path / "named").symlink_to(root)  # the folder itself may be a link
    (root / "a").symlink_to("inner/x")
    (root / "b").symlink_to(root / "inner")
    (root / "out").symlink_to(disk)
    (root / "twice").symlink_to("out")
    (root / "up").symlink_to("..")
    (root / "circle").symlink_to("circle")
    for folder in (root, tmp_path / "named"):
        assert [inside(folder, name, "").exists() for name in ("a", "b/x", "b/y", "inner/x")] == [1, 1, 0, 1]
        for name in ("out", "out/deep/x", "twice/deep/x", "up/disk/deep/x", "up/root2", "out/none"):
            with pytest.raises(DataError, match=rf"^here: path '{name}' is a link out of {folder}, .*OMNIBIND_LINKS"):
                inside(folder, name, "here")
    assert inside(root, "up/root/inner/x", "").is_file()
    monkeypatch.setenv("OMNIBIND_LINKS", f":{disk}:")
    assert inside(root, "twice/deep/x", "").is_file()
    (root / "near").symlink_to("../disk2")  # begins like one that is named
    with pytest.raises(DataError):
        inside(root, "near/x", "")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture beside the folder of data."""
    (tmp_path / "root").mkdir()
    assert cv2.imwrite(str(tmp_path / "secret.png"), np.full((8, 8, 3), 99, np.uint8))
    return tmp_path / "secret.png"


@pytest.mark.parametrize("name", CLIMBING)
def test_own_tables(name: str, secret: Path) -> None:
    root = secret.parent / "root"
    rows = f"a,image,s,a.png,cup,train,g\nb,image,s,{name},cup,train,g\n"
    (root / "samples.csv").write_text(f"id,modality,source,path,label,split,group\n{rows}")
    with pytest.raises(DataError) as caught:
        sources.create("folder", root)
    assert str(caught.value) == (
        f"{root / 'samples.csv'}: line 3: path {name!r} leads out of the folder; 1 other rows are fine"
    )


def test_tables_of_published_data_sets(secret: Path) -> None:
    root = secret.parent / "root"
    (root / "meta").mkdir()
    (root / "audio").mkdir()
    row = "../../secret.png,1,0,dog,True,1,A"
    (root / "meta/esc50.csv").write_text(f"filename,fold,target,category,esc10,src_file,take\n{row}\n")
    source = sources.create("esc50", root)
    with pytest.raises(DataError, match=rf"{root}, sample '.*': path 'audio/../../secret.png' leads out of the folder"):
        source.load(source[0])
    assert "leads out" in str(source.inspect().broken)
    assert {sources.get(name).path for name in BUILT_IN} == {Source.path}  # none has a way of its own
