"""Files for those who contribute: hooks, workflow, templates and container against the Makefile and the pins."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess

import pytest
import yaml


def read(path):
    return path.read_text(encoding="utf-8")


def recipe(repo, target):
    """Commands of a target of the Makefile, without the environment."""
    body = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", read(repo / "Makefile"), re.M)[1]
    return [line.strip().removeprefix("@").removeprefix("$(RUN) ") for line in body.splitlines()]


def test_the_hooks_are_make_lint_without_mypy(repo):
    (local,) = yaml.safe_load(read(repo / ".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in local["hooks"])
    entries = [hook["entry"] for hook in local["hooks"]]
    ruff = [entry.removeprefix(".venv/bin/") for entry in entries if entry.startswith(".venv/bin/")]
    assert [*ruff, "mypy"] == recipe(repo, "lint")
    assert set(entries) - {f".venv/bin/{entry}" for entry in ruff} == {"git diff --cached --check"}


@pytest.mark.parametrize("package", ["ruff", "mypy"])
def test_what_the_hooks_and_make_lint_run_is_what_is_pinned(repo, package):
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", read(repo / "requirements" / "dev.txt"), re.M))
    assert importlib.metadata.version(package) == pins[package]


def test_the_tests_of_a_file_share_a_worker(request):
    """Else each worker makes the fixtures of every file, and tests over DDS run beside each other."""
    side_by_side = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@test_repository") or not side_by_side


@pytest.fixture(scope="module")
def jobs(repo):
    return yaml.safe_load(read(repo / ".github" / "workflows" / "ci.yml"))["jobs"]


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def test_the_workflow_calls_targets_that_exist(repo, jobs):
    targets = set(re.findall(r"^([a-z-]+):", read(repo / "Makefile"), re.M))
    called = {name: re.findall(r"\bmake ([a-z-]+)", "\n".join(commands(job))) for name, job in jobs.items()}
    assert called == {"test": ["test"], "colcon": [], "docs": ["docs"]}
    assert {target for found in called.values() for target in found} <= targets


def test_the_workflow_names_files_that_exist(repo, jobs):
    text = "\n".join(commands(jobs["colcon"]))
    files = re.findall(r"-r (\S+\.txt)", text)
    assert {"robot.txt", "dev.txt", "weights.txt"} == set(files)
    assert all((repo / "requirements" / name).is_file() for name in files)
    assert (repo / "tools" / "setup_env.py").is_file()


def test_the_workflow_tests_supported_pythons_and_needs_no_secret(repo, jobs):
    supported = re.search(r"^SUPPORTED = (.*?)\s*#", read(repo / "tools" / "setup_env.py"), re.M)[1]
    tried = {tuple(map(int, version.split("."))) for version in jobs["test"]["strategy"]["matrix"]["python"]}
    assert (3, 12) in tried and all(str(version) in supported for version in tried)
    text = read(repo / ".github" / "workflows" / "ci.yml")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert "secrets." not in text and "upload" not in text
    assert all(job["timeout-minutes"] for job in jobs.values())


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_are_forms(repo, name):
    form = yaml.safe_load(read(repo / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml"))
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_a_bug_report_asks_for_options_that_exist(repo):
    from omnibind_core import cli

    text = read(repo / ".github" / "ISSUE_TEMPLATE" / "bug.yml")
    line = re.search(r"`omnibind (bag record .*?)`", re.sub(r"\s+", " ", text))[1]
    args = cli.parser().parse_args(line.split())
    assert args.all and args.duration == 10
    assert {"`omnibind --version`", "`omnibind bag inspect bag`"} <= set(re.findall(r"`[^`]+`", text))


def test_the_container_sets_up_by_a_script_that_exists(repo):
    container = json.loads(read(repo / ".devcontainer" / "devcontainer.json"))
    command, script = container["postCreateCommand"].split()
    assert command == "bash" and "make setup" in read(repo / script)
    subprocess.run(["bash", "-n", repo / script], check=True)


def test_no_two_test_files_have_one_name(repo):
    names = sorted(path.name for path in repo.glob("test/*/test_*.py"))
    assert names == sorted(set(names)), "colcon names a test by its file"
