"""Label matching by an endpoint, against a local server that answers as told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from omnibind_core import cli
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.matching import llm
from omnibind_core.data.matching.llm import Endpoint, match_labels_by_endpoint
from omnibind_core.data.matching.phrases import Rules
from omnibind_core.errors import ConfigError, DataError

PAIRS = [
    ("a", "Mug", "image"),
    ("a", "dalmatian", "image"),
    ("b", "cup", "audio"),
    ("b", "dog", "audio"),
    ("b", "dog_bark", "audio"),
]
TRUTH = {"mug": "cup", "cup": "mug", "dalmatian": "dog", "dog bark": "dalmatian", "dog": "dog"}

Answer = Callable[[int, Mapping[str, Any]], "str | int | None"]
"""(number of the request, question) -> content of the answer, HTTP status, or None: no answer in time."""


class Stub:
    """A chat endpoint.

    Attributes:
        answer: What it answers.
        requests: Bodies of the requests so far.
        headers: Their headers.
    """

    def __init__(self) -> None:
        self.answer: Answer = lambda _, question: right(question)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.raw: bytes | None = None
        self.redirect: tuple[int, str] | None = None
        self.reason: str | None = None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/chat/completions"
                stub.requests.append(body)
                stub.headers.append(dict(self.headers))
                question = json.loads(body["messages"][1]["content"].split("\n\n")[0])
                answer = stub.answer(len(stub.requests), question)
                if answer is None:
                    time.sleep(1)
                    return
                if stub.redirect is not None:
                    self.send_response(stub.redirect[0])
                    self.send_header("Location", stub.redirect[1])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if isinstance(answer, int):
                    self.send_error(answer, stub.reason)
                    return
                content = stub.raw or json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:  # what Python makes of a redirected POST
                stub.requests.append({})
                stub.headers.append(dict(self.headers))
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


def right(question: Mapping[str, Any], **wrong: str) -> str:
    truth = {**TRUTH, **wrong}
    rows = [
        {"id": item["id"], "canonical": truth[item["label"].lower().replace("_", " ")], "score": 0.9, "reason": "so"}
        for item in question["labels"]
    ]
    return json.dumps({"matches": rows})


@contextmanager
def served() -> Iterator[Stub]:
    stub = Stub()
    thread = threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        stub.server.shutdown()
        stub.server.server_close()
        thread.join()


@pytest.fixture
def stub() -> Iterator[Stub]:
    with served() as stub:
        yield stub


@pytest.fixture
def endpoint(stub: Stub) -> Endpoint:
    return Endpoint(stub.url, "tiny", timeout=10.0, pause=0.0, batch=2)


def found(concepts: Concepts) -> dict[str, str]:
    return {match.label: match.canonical for match in concepts}


def test_asks_in_batches_and_joins_the_answers(stub: Stub, endpoint: Endpoint, tmp_path: Path) -> None:
    concepts = match_labels_by_endpoint(PAIRS, endpoint, tmp_path / "log.jsonl")
    assert found(concepts) == {"Mug": "cup", "cup": "cup", "dalmatian": "dog", "dog": "dog", "dog_bark": "dog"}
    assert len(stub.requests) == 3
    first = stub.requests[0]
    assert (first["temperature"], first["seed"], first["model"]) == (0, 0, "tiny")
    question = json.loads(first["messages"][1]["content"])
    assert question["names"] == ["cup", "dalmatian", "dog", "dog bark", "mug"]
    assert question["labels"][0] == {"id": 0, "source": "a", "label": "Mug", "modalities": ["image"]}


def test_second_run_makes_no_request(stub: Stub, endpoint: Endpoint, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    first = list(match_labels_by_endpoint(PAIRS, endpoint, log))
    asked, text = len(stub.requests), log.read_text()
    assert list(match_labels_by_endpoint(PAIRS[::-1], endpoint, log)) == first
    assert len(stub.requests) == asked
    assert log.read_text() == text
    match_labels_by_endpoint(PAIRS, replace(endpoint, model="other"), log)  # another model is asked anew
    assert len(stub.requests) == 2 * asked


def test_log_holds_question_answer_and_prompt_but_no_key(
    stub: Stub, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "secret-123")
    log = tmp_path / "log.jsonl"
    match_labels_by_endpoint(PAIRS, replace(endpoint, key_variable="SOME_KEY"), log)
    assert stub.headers[0]["Authorization"] == "Bearer secret-123"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["request"] for entry in entries] == stub.requests
    assert all(len(entry["prompt_sha256"]) == 64 and json.loads(entry["answer"]) for entry in entries)
    assert "secret" not in log.read_text()


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("here you are: {", "no usable answer|not one JSON object"),
        ("[]", "not one JSON object"),
        ('{"matches": []}', "id 0 is missing"),
        (
            '{"matches": [{"id": 0, "canonical": "unicorn", "score": 1, "reason": ""}]}',
            "'unicorn' of id 0 is not in names",
        ),
        ('{"matches": [{"id": 0, "canonical": ["dog"], "score": 1, "reason": ""}]}', "is not in names"),
        ('{"matches": [{"id": 0, "canonical": "dog", "score": 7, "reason": ""}]}', "score 7 of id 0"),
        ('{"matches": [{"id": 0, "canonical": "dog", "score": true, "reason": ""}]}', "score True of id 0"),
        ('{"matches": [{"id": 0, "canonical": "dog", "score": 1}]}', "reason None of id 0"),
        (500, "HTTP 500"),
    ],
)
def test_asks_again_after_an_unusable_answer(
    bad: str | int, problem: str, stub: Stub, endpoint: Endpoint, tmp_path: Path
) -> None:
    stub.answer = lambda number, question: bad if number == 1 else right(question)
    assert len(match_labels_by_endpoint(PAIRS, endpoint, tmp_path / "log.jsonl")) == len(PAIRS)
    assert len(stub.requests) == 4
    assert "could not be used" in stub.requests[1]["messages"][1]["content"]

    stub.answer = lambda number, question: bad
    with pytest.raises(DataError, match=problem) as caught:
        match_labels_by_endpoint(PAIRS, endpoint, tmp_path / "other.jsonl")
    assert "'Mug' of source 'a'" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "asked"), [*((status, 3) for status in (408, 409, 425, 429, 500, 502, 503, 504)),
                          *((status, 1) for status in (400, 401, 403, 404, 422, 501))]
)  # fmt: skip
def test_asks_again_only_where_that_may_help_and_waits_longer_each_time(
    status: int, asked: int, stub: Stub, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(llm.time, "sleep", pauses.append)
    stub.answer = lambda number, question: status
    with pytest.raises(DataError, match=f"HTTP {status}"):
        match_labels_by_endpoint(PAIRS, replace(endpoint, pause=2.0), tmp_path / "log.jsonl")
    assert len(stub.requests) == asked
    assert pauses == [2.0, 4.0][: asked - 1]
    assert (Endpoint(stub.url, "tiny").pause, Endpoint(stub.url, "tiny").attempts) == (1.0, 3)


def test_keeps_what_is_fine_and_names_the_rest(stub: Stub, endpoint: Endpoint, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    stub.answer = lambda number, question: right(question, dog="hound")
    with pytest.raises(
        DataError, match=r"label 'dog' of source 'b' .*'hound'.*after 3 attempts; 4 of 5 labels are fine"
    ):
        match_labels_by_endpoint(PAIRS, endpoint, log)
    asked = [len(json.loads(r["messages"][1]["content"].split("\n\n")[0])["labels"]) for r in stub.requests]
    assert asked == [2, 2, 1, 1, 1]  # only what is missing is asked about again
    stub.answer = lambda number, question: right(question)
    assert len(match_labels_by_endpoint(PAIRS, endpoint, log)) == 5
    assert len(stub.requests) == 6


def test_slow_or_dead_or_strange_endpoints_are_one_clear_error(stub: Stub, endpoint: Endpoint, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    stub.answer = lambda number, question: None
    with pytest.raises(DataError, match=r"'Mug'.*no answer in 0\.1 s.*0 of 5 labels are fine"):
        match_labels_by_endpoint(PAIRS, replace(endpoint, timeout=0.1, attempts=1), log)
    assert len(stub.requests) == 1  # not every batch waits for the time-out
    stub.answer = lambda number, question: 401
    with pytest.raises(DataError, match=r"HTTP 401.*\$OPENAI_API_KEY"):
        match_labels_by_endpoint(PAIRS, endpoint, log)
    assert len(stub.requests) == 2  # asking again is useless
    stub.answer, stub.raw = lambda number, question: "", b'{"error": "overloaded"}'
    with pytest.raises(DataError, match="no chat completion"):
        match_labels_by_endpoint(PAIRS, endpoint, log)
    with pytest.raises(DataError, match="no connection"):
        match_labels_by_endpoint(PAIRS, replace(endpoint, url="http://127.0.0.1:9/v1"), log)


def test_damaged_log_costs_only_its_line(
    stub: Stub, endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log.jsonl"
    match_labels_by_endpoint(PAIRS, endpoint, log)
    log.write_bytes(log.read_bytes()[:-30])  # killed while it wrote the last line
    match_labels_by_endpoint(PAIRS, endpoint, log)
    assert len(stub.requests) == 4
    assert "line 3" in caplog.text
    match_labels_by_endpoint(PAIRS, endpoint, log)
    assert len(stub.requests) == 4


def test_a_name_that_a_label_keeps_for_itself_is_not_moved_on(stub: Stub, endpoint: Endpoint, tmp_path: Path) -> None:
    pairs = [("desk", "mouse", "image"), ("desk", "computer mouse", "event"), ("zoo", "mouse", "audio")]

    def answer(_: int, question: Mapping[str, Any]) -> str:
        rows = [
            {
                "id": i["id"],
                "canonical": "mouse" if i["source"] == "zoo" else "computer mouse",
                "score": 1,
                "reason": "",
            }
            for i in question["labels"]
        ]
        return json.dumps({"matches": rows})

    stub.answer = answer
    result = {(m.source, m.label): m.canonical for m in match_labels_by_endpoint(pairs, endpoint, tmp_path / "log")}
    assert result["zoo", "mouse"] == "mouse" != result["desk", "mouse"] == result["desk", "computer mouse"]


def test_own_rules_win(stub: Stub, endpoint: Endpoint, tmp_path: Path) -> None:
    rules = Rules(canonical={"b/dog": "puppy", "Mug": ""})
    result = found(match_labels_by_endpoint(PAIRS, endpoint, tmp_path / "log.jsonl", rules))
    assert (result["dog"], result["Mug"], result["dalmatian"]) == ("puppy", "", "dog")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_goes_nowhere_else_after_a_redirect(
    status: int, stub: Stub, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-123")
    with served() as other:
        there = other.url.replace("127.0.0.1", "localhost").replace("http://", "http://me:pass-word@")
        for place in (f"{there}/chat/completions?key=pass-word", stub.url + "/chat/completions"):
            stub.redirect = status, place
            asked = len(stub.requests)
            with pytest.raises(
                DataError, match=rf"HTTP {status} .* redirects to http://(localhost|127)\S+, where no key"
            ) as caught:
                match_labels_by_endpoint(PAIRS, endpoint, tmp_path / "log.jsonl")
            assert len(stub.requests) == asked + 1  # nor is the same host asked, which may be another port or scheme
            assert not other.requests
            assert "pass-word" not in str(caught.value) + (tmp_path / "log.jsonl").read_text()


def test_credentials_in_a_url_are_sent_and_never_told(
    stub: Stub, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-123")
    log = tmp_path / "log.jsonl"
    given = replace(endpoint, url=stub.url.replace("//", "//me:pass%2Dword@") + "/")
    with caplog.at_level("DEBUG"):
        match_labels_by_endpoint(PAIRS, given, log)
        stub.answer, stub.reason = lambda number, question: 401, "no bWU6cGFzcy13b3Jk here"
        with pytest.raises(DataError, match=rf"^{stub.url}/, model 'tiny': .*HTTP 401 no \.\.\. here") as caught:
            match_labels_by_endpoint(PAIRS, replace(given, model="tiny", seed=1), log)
    assert {one["Authorization"] for one in stub.headers} == {"Basic bWU6cGFzcy13b3Jk"}  # me:pass-word, and no key
    told = f"{caught.value} {given!r} {caplog.text} {log.read_text()}"
    assert not [word for word in ("secret", "pass-word", "pass%2D", "bWU6") if word in told]


@pytest.mark.parametrize(
    "url",
    [
        "me:pass-word@host/v1",
        "http://me:pass-word/@host",
        "http://me:pass-word@[",
        "http://me:pass-word@h:x",
        "http://h/v 1?pass-word",
        "http://h:0?pass-word",
        "ftp://me:\npass-word@h",
    ],
)
def test_unusable_urls_are_named_without_credentials(url: str) -> None:
    with pytest.raises(ConfigError, match="endpoint is") as caught:
        Endpoint(url, "m")
    assert "pass-word" not in str(caught.value)


def test_a_key_that_no_header_can_hold_is_not_told(
    stub: Stub, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-123\nX: y")
    with pytest.raises(ConfigError, match=r"\$OPENAI_API_KEY holds") as caught:
        match_labels_by_endpoint(PAIRS, endpoint, tmp_path / "log.jsonl")
    assert "secret" not in str(caught.value) and not stub.requests
    monkeypatch.setenv("OPENAI_API_KEY", "secret-123\n")  # as $(cat FILE) of some shells
    match_labels_by_endpoint(PAIRS, endpoint, tmp_path / "log.jsonl")
    assert stub.headers[0]["Authorization"] == "Bearer secret-123"


def test_an_endless_answer_is_refused(
    stub: Stub, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "_MOST_ANSWERED", 1000)
    stub.answer = lambda number, question: "x" * 1001
    with pytest.raises(DataError, match="an answer of more than 1000 bytes"):
        match_labels_by_endpoint(PAIRS, endpoint, tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    "values", [{"url": "localhost:8000"}, {"model": ""}, {"attempts": 0}, {"timeout": -1.0}, {"batch": 0}]
)
def test_wrong_settings_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Endpoint(**{"url": "http://localhost/v1", "model": "m", **values})


def test_command(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in "ab":
        rows = [
            f"{source}{i},{modality},{source},{i}.x,{label},train,"
            for i, (of, label, modality) in enumerate(PAIRS)
            if of == source
        ]
        (tmp_path / source).mkdir()
        (tmp_path / source / "samples.csv").write_text(
            "\n".join(["id,modality,source,path,label,split,group", *rows]) + "\n"
        )
    out = tmp_path / "labels.csv"
    command = ["data", "match", str(tmp_path / "a"), f"folder={tmp_path / 'b'}", "--out", str(out)]
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--matcher", "endpoint", "--endpoint", stub.url, "--endpoint-model", "tiny"])
    assert caught.value.code == 0
    assert found(Concepts.read(out))["dog_bark"] == "dog"
    assert "5 labels -> 2 concepts" in capsys.readouterr().out
    assert (tmp_path / "labels.answers.jsonl").is_file()
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--matcher", "endpoint"])
    assert caught.value.code == 2
    assert "--endpoint" in capsys.readouterr().err
