"""The documents: links and anchors, snippets against the code, the menu of the site, RViz and Foxglove files."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml

from omnibind_core import cli
from omnibind_ros.node.parameters import FUSION_NODE, SENSOR, SENSOR_NODE

REPO = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *sorted((REPO / "docs").glob("*.md")),
    *(REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    REPO / "examples" / "depth" / "README.md",
    REPO / "examples" / "radar" / "README.md",
    REPO / "omnibind_core" / "weights" / "lite" / "README.md",
]
NAMES = [str(path.relative_to(REPO)) for path in DOCUMENTS]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.M | re.S)
STATES = r"(DISABLED|WAITING|ACTIVE|LATE|STALE|REJECTED|INCOMPATIBLE_QOS)"


@cache
def text_of(path):
    return path.read_text(encoding="utf-8")


@cache
def prose_of(path):
    """Without code blocks."""
    return FENCE.sub("", text_of(path))


def blocks(language):
    """Code blocks of a language: (document and number, text)."""
    found = []
    for path, name in zip(DOCUMENTS, NAMES, strict=True):
        all_of_it = [body for _, kind, body in FENCE.findall(text_of(path)) if kind == language]
        for own in re.findall(r"^examples/(\w+)/", name):  # its plug-in would stay registered for all other tests
            all_of_it = [
                body.replace(f"--{own}", "--image").replace(f"type: {own}", "type: camera") for body in all_of_it
            ]
        found += [pytest.param(body, id=f"{name}-{number}") for number, body in enumerate(all_of_it)]
    return found


# Links --------------------------------------------------------------------------------------------------------------


def anchors(path):
    """Anchors of the headings, where GitHub and the site agree on them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose_of(path), re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        on_github = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        on_site = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip())
        if on_github == on_site:
            found.add(on_site)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose_of(path))):
        if re.match(r"(https?:|mailto:)", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


class SiteLoader(yaml.SafeLoader):
    """Reads mkdocs.yml, which names functions of extensions."""


SiteLoader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, name, node: name)


def test_the_menu_has_every_document():
    site = yaml.load((REPO / "mkdocs.yml").read_text(encoding="utf-8"), SiteLoader)
    assert site["strict"] and (REPO / site["hooks"][0]).is_file()
    groups = [[entry] if isinstance(entry, str) else next(iter(entry.values())) for entry in site["nav"]]
    listed = [page for group in groups for page in group]
    spec = importlib.util.spec_from_file_location("docs_hooks", REPO / site["hooks"][0])
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    expected = {path.name for path in (REPO / "docs").glob("*.md")} | {f"{folder}/README.md" for folder in hooks.BESIDE}
    assert len(listed) == len(set(listed))
    assert set(listed) == expected, "mkdocs.yml, nav: every document once"


def test_links_out_of_the_folder_are_right_on_the_site():
    spec = importlib.util.spec_from_file_location("docs_hooks", REPO / "tools" / "docs_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)

    class Page:
        class file:  # noqa: N801
            src_uri = "own_modality.md"

    assert hooks.on_page_markdown("[a](../examples/depth/README.md#x)", Page) == "[a](examples/depth/README.md#x)"
    assert hooks.on_page_markdown("[a](data.md) [b](https://x.org)", Page) == "[a](data.md) [b](https://x.org)"
    Page.file.src_uri = "examples/depth/README.md"
    assert hooks.on_page_markdown("[a](../../docs/data.md#x)", Page) == "[a](../../data.md#x)"


# Snippets -----------------------------------------------------------------------------------------------------------


@cache
def parser():
    return cli.parser()


def sub_parsers(of):
    groups = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    return groups[0].choices if groups else {}


def wrong_with_omnibind(words):
    """What is wrong with the words behind ``omnibind``; empty if nothing is."""
    current, rest = parser(), list(words)
    while rest:
        word = rest.pop(0)
        options = {name for action in current._actions for name in action.option_strings}
        if word.startswith("-"):
            if word.partition("=")[0] not in options:
                return f"no option {word}"
        elif sub_parsers(current):
            if word in ("COMMAND", "…", "..."):
                return ""
            if word not in sub_parsers(current):
                return f"no command {word}"
            current = sub_parsers(current)[word]
    return ""


def wrong_with_ros2(words):
    if words[:2] == ["launch", "omnibind_ros"]:
        launch = text_of(REPO / "launch" / words[2])
        known = set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', launch))
        return ", ".join({word.partition(":=")[0] for word in words[3:] if ":=" in word} - known)
    if words[:2] == ["run", "omnibind_ros"]:
        if not (REPO / "bin" / words[2]).is_file():
            return f"no program {words[2]}"
        if words[2] == "omnibind":
            return wrong_with_omnibind([word for word in words[3:] if word != "..."])
        known = {spec.name for spec in (*FUSION_NODE, *SENSOR_NODE)}
        of_sensors = {spec.name for spec in SENSOR}
        given = [words[i + 1].partition(":=")[0] for i, word in enumerate(words) if word == "-p"]
        return ", ".join(
            name for name in given if name not in known and name.rpartition(".")[2] not in of_sensors | {"use_sim_time"}
        )
    if words[:2] == ["param", "set"] and len(words) > 3:
        known = {spec.name for spec in FUSION_NODE}
        given = words[3].rpartition(".")[2] in {spec.name for spec in SENSOR} if "." in words[3] else words[3] in known
        return "" if given else f"no parameter {words[3]}"
    return ""


def wrong_with(words):
    program, rest = words[0], words[1:]
    if program == "omnibind":
        return wrong_with_omnibind(rest)
    if program == "ros2":
        return wrong_with_ros2(rest)
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", text_of(REPO / "Makefile"), re.M))
        return ", ".join({word for word in rest if "=" not in word and not word.startswith("-")} - targets)
    if program in ("python", "python3") and rest[:1] == ["-m"] and rest[1].startswith("omnibind"):
        return "" if importlib.util.find_spec(rest[1]) else f"no module {rest[1]}"
    if program in ("python", "python3") and rest[0].startswith(("tools/", "examples/")):
        return "" if (REPO / rest[0]).is_file() else f"no file {rest[0]}"
    if program in ("source", ".") and rest[0].startswith("tools/"):
        return "" if (REPO / rest[0]).is_file() else f"no file {rest[0]}"
    if program == "pip" and "-r" in rest:
        name = rest[rest.index("-r") + 1].removeprefix("src/omnibind/")
        return "" if (REPO / name).is_file() else f"no file {name}"
    return ""


def commands(body):
    """Commands in a block or a span, as words."""
    for line in re.sub(r"\\\n\s*", " ", body).splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # prose, or half a command
            continue
        start = 0
        for place, word in enumerate([*words, ";"]):
            if word in (";", "&&", "|", ">", "&"):
                command = words[start:place]
                while command and re.fullmatch(r"[A-Z_]+=\S*", command[0]):
                    command = command[1:]
                if command:
                    yield command
                start = place + 1


@pytest.mark.parametrize("body", [*blocks("bash"), *blocks("")])
def test_commands_exist(body):
    assert [(words, wrong) for words in commands(body) if (wrong := wrong_with(words))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_commands_in_sentences_exist(path):
    spans = re.findall(r"`((?:omnibind|make|python3?|ros2) [^`]+)`", prose_of(path).replace("\n", " "))
    wrong = [(words, what) for span in spans for words in commands(span) if (what := wrong_with(words))]
    assert wrong == []


@pytest.mark.parametrize("body", blocks("python"))
def test_python_compiles(body):
    assert compile(body, "snippet", "exec")


@pytest.mark.parametrize("body", blocks("yaml"))
def test_yaml_is_right(body):
    setup = pytest.importorskip("omnibind_ros.replay.setup")
    content = yaml.safe_load(body)
    assert content
    if isinstance(content, dict) and "/**" in content:
        given = setup._flat(content["/**"]["ros__parameters"])
        parameters = setup.GivenParameters(given)
        assert parameters.unknown(given) == []


def test_the_checks_find_mistakes():
    assert wrong_with(["omnibind", "predcit"]) and wrong_with(["omnibind", "predict", "--imgae", "x"])
    assert not wrong_with(["omnibind", "-v", "data", "inspect", "folder", "DIR", "--labels"])
    assert wrong_with(["make", "coffee"]) and wrong_with(["ros2", "run", "omnibind_ros", "fusion"])
    assert wrong_with(["ros2", "launch", "omnibind_ros", "perception.launch.py", "modle:=lite"])
    assert wrong_with(["ros2", "run", "omnibind_ros", "fusion_node", "--ros-args", "-p", "rates:=1"])
    assert list(commands("A=1 make x && omnibind y  # z\n")) == [["make", "x"], ["omnibind", "y"]]


# Reasons ------------------------------------------------------------------------------------------------------------


@cache
def spoken():
    """All text in the code, strings over several lines joined, what is filled in left out."""
    source = "\n".join(
        text_of(path) for folder in ("omnibind_core", "omnibind_ros") for path in sorted((REPO / folder).rglob("*.py"))
    )
    source = re.sub(r'"\s*\n?\s*(?:\+ )?f?"', "", source)
    return re.sub(r"\{[^{}]*\}", "{}", source)


def fragments(reason):
    """Parts of a reason that are always the same: of three words or more."""
    reason = re.sub(rf"^{STATES}(: |$)", "", reason)
    reason = re.sub(r"\[\w+\] got |^got ", "", reason)
    for part in re.split(
        r"[+-]?\d+\.\d+|\w*\d\w*|\bcamera\b|'[^']*'|\.\.\.|/\w+(?:/\w+)*|[:;,]|\bexpected\b|\b[ABCx]\b", reason
    ):
        words = part.strip(" ()")
        if len(words.split()) >= 3:
            yield words


def test_troubleshooting_speaks_as_the_node_does():
    document = text_of(REPO / "docs" / "troubleshooting.md")
    cells = re.findall(r"^\| (.+?) \|", document, re.M)
    reasons = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell) if " " in span]
    foreign = ("ModuleNotFoundError", "error: externally", "A module that was compiled", "ros2 ")
    parts = {part for reason in reasons if not reason.startswith(foreign) for part in fragments(reason)}
    assert len(parts) > 15
    assert {part for part in parts if part not in spoken()} == set()


# RViz and Foxglove --------------------------------------------------------------------------------------------------


def topics():
    """Type of each topic of the fusion node, from docs/topics.md, as it is without a namespace."""
    section = text_of(REPO / "docs" / "topics.md").partition("## fusion_node")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?:in|out) \| `(.+?)` \| (.+?) \|", section, re.M)
    names = ((name.replace("~", "/fusion_node"), kind) for name, kind in rows)
    return {name if name.startswith("/") else f"/{name}": kind for name, kind in names}


def message_fields(name):
    """Type of each field of one of our messages."""
    definition = text_of(REPO / "msg" / f"{name}.msg")
    return {field: kind for kind, field in re.findall(r"^(\S+) ([a-z_0-9]+)\s+# ", definition, re.M)}


def test_rviz_shows_topics_that_exist():
    content = yaml.safe_load(text_of(REPO / "config" / "rviz" / "omnibind.rviz"))
    displays = [display for display in content["Visualization Manager"]["Displays"] if "Topic" in display]
    shown = {display["Topic"]["Value"]: display for display in displays}
    assert set(shown) <= set(topics())
    assert "/fusion_node/debug_image" in shown and "/lidar/points" in shown
    reliability = {topic: display["Topic"]["Reliability Policy"] for topic, display in shown.items()}
    assert reliability.pop("/fusion_node/debug_image") == "Reliable"
    assert set(reliability.values()) == {"Best Effort"}  # hears every driver
    for topic, display in shown.items():
        cloud = "point_cloud" in topics()[topic]
        assert display["Class"] == f"rviz_default_plugins/{'PointCloud2' if cloud else 'Image'}"


def paths_in(value):
    """Every message path and topic in a layout."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("imageTopic", "topicPath", "topicToRender", "value") and isinstance(inner, str):
                yield inner
            elif key == "topics":
                yield from inner
            yield from paths_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from paths_in(inner)


def leaves(node):
    return [node] if isinstance(node, str) else [*leaves(node["first"]), *leaves(node["second"])]


def test_foxglove_shows_topics_and_fields_that_exist():
    content = json.loads(text_of(REPO / "config" / "foxglove" / "omnibind.json"))
    assert sorted(leaves(content["layout"])) == sorted(content["configById"])
    known = topics()
    paths = sorted(set(paths_in(content["configById"])))
    assert len(paths) > 10
    for path in paths:
        topic, _, fields = path.partition(".")
        assert topic in known, path
        kind = known[topic].rpartition("/")[2]
        for field in filter(None, fields.split(".")):
            name = field.partition("[")[0]
            assert name in message_fields(kind), path
            kind = message_fields(kind)[name].removesuffix("[]")
    states = {name for path in paths for name in re.findall(r'name=="(\w+)"', path)}
    defaults = yaml.safe_load(text_of(REPO / "config" / "perception.yaml"))["/**"]["ros__parameters"]["sensors"]
    assert states == set(defaults)
