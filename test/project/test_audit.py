"""The audit of the packages: what it finds, what it writes, and what it says where no advisories can be had."""

from __future__ import annotations

import http.server
import importlib.util
import json
import threading
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tools/audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BSD = "License :: OSI Approved :: BSD License"
DIGEST = "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg"  # of b"test"


def package(folder: Path, name: str, version: str, *metadata: str, content: bytes = b"test") -> Distribution:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("\n".join((f"Name: {name}", f"Version: {version}", *metadata, "")))
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text(f"{name}.py,sha256={DIGEST},4\n{name}.cmake,sha256=other,4\n")
    (folder / f"{name}.py").write_bytes(content)
    return Distribution.at(info)


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Distribution]:
    return {
        "one": package(tmp_path, "one", "1.0+cpu", "License-Expression: MIT", "Requires-Dist: two>=1; extra == 'x'"),
        "two": package(
            tmp_path, "two", "2.0", "Classifier: License :: OSI Approved :: BSD License", "License: UNKNOWN"
        ),
        "three": package(tmp_path, "three", "3", "License: CC-BY-NC-4.0", "Requires-Dist: two", content=b"best"),
        "four": package(tmp_path, "four", "4"),
    }


@pytest.fixture
def database() -> Iterator[str]:
    """Answers as OSV does: something is known against ``two``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            assert {"package": {"name": "one", "ecosystem": "PyPI"}, "version": "1.0"} in asked
            results = [{"vulns": [{"id": "GHSA-1"}]} if row["package"]["name"] == "two" else {} for row in asked]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"results": results}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_versions_that_are_not_the_locked_ones_are_found(audit: ModuleType) -> None:
    wanted, optional = {"a": "1", "b": "2", "torch": "3"}, {"cuda": "1"}
    assert [*audit.unlocked({"a": "1", "b": "2", "torch": "3+cpu", "pip": "9"}, wanted, optional)] == []
    assert [*audit.unlocked({"a": "2", "torch": "3", "cuda": "2", "x": "1"}, wanted, optional)] == [
        "a 2 is installed, 1 is locked",
        "cuda 2 is installed, 1 is locked",
        "x 1 is installed, and in no lock file",
        "b 2 is locked, and not installed",
    ]


def test_files_that_are_not_those_of_the_wheel_are_found(
    audit: ModuleType, packages: dict[str, Distribution], tmp_path: Path
) -> None:
    assert [*audit.altered(packages["one"])] == []
    assert [*audit.altered(packages["three"])] == ["three.py of three 3 is not what was in the wheel"]
    (tmp_path / "two.py").unlink()
    assert [*audit.altered(packages["two"])] == ["two.py of two cannot be read: No such file or directory"]


def test_licences_are_told_and_flagged(audit: ModuleType, packages: dict[str, Distribution]) -> None:
    rows = [line for line in audit.licence_table(packages).splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| three | 3 | CC-BY-NC-4.0 | not for commerce |",
        "| four | 4 |  | unknown |",
        "| one | 1.0+cpu | MIT |  |",
        "| two | 2.0 | BSD License |  |",
    ]
    for text, kind in {"AGPL-3.0": "copyleft", "LGPL-2.1": "weak copyleft", "MPL-2.0": "weak copyleft"}.items():
        assert audit.flag(text) == kind


def test_the_bill_names_every_package_and_what_it_needs(audit: ModuleType, packages: dict[str, Distribution]) -> None:
    bill = audit.bill(packages)
    assert bill == audit.bill(packages) and bill["bomFormat"] == "CycloneDX"
    assert [row["purl"] for row in bill["components"]] == [
        "pkg:pypi/four@4", "pkg:pypi/one@1.0%2Bcpu", "pkg:pypi/three@3", "pkg:pypi/two@2.0",
    ]  # fmt: skip
    needs = {row["ref"]: row["dependsOn"] for row in bill["dependencies"]}
    assert needs["pkg:pypi/three@3"] == ["pkg:pypi/two@2.0"] and needs["pkg:pypi/one@1.0%2Bcpu"] == []


def test_the_exit_status_says_whether_advisories_were_checked(
    audit: ModuleType,
    packages: dict[str, Distribution],
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "misfits", lambda lonely: [])
    monkeypatch.setattr(audit, "installed", lambda: packages)
    assert audit.audit(tmp_path / "out", (), database) == 1
    out = capsys.readouterr().out
    assert "two 2.0: GHSA-1" in out and "three.py of three 3 is not" in out
    assert json.loads((tmp_path / "out/sbom.json").read_text())["components"]
    del packages["three"], packages["two"]
    assert audit.audit(tmp_path / "out", (), database) == 0
    assert audit.audit(tmp_path / "out", (), "http://127.0.0.1:9") == 3
    assert "advisories: NOT CHECKED, http://127.0.0.1:9 cannot be used" in capsys.readouterr().out
