"""Label-level matching by a language model behind any OpenAI-compatible chat endpoint, as in the paper (Sec. 3.4).

The model chooses, for every label, one of the names that the labels themselves offer; so answers to different requests
fit together, and an invented name is found out. What was asked and answered is kept in a JSON-lines file beside the
table, which is also the cache: labels with a usable answer there are not asked about again.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnibind_core import resources
from omnibind_core.config import from_json
from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.matching.labels import Pair
from omnibind_core.data.matching.phrases import Rules, plain
from omnibind_core.errors import ConfigError, DataError
from omnibind_core.labels import clean

_logger = logging.getLogger(__name__)

_PROMPT = resources.path("data/matching/prompt.txt")
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # what may be better later; others never are
_SHOWN = 3
_MOST_ANSWERED = 1 << 24  # bytes of an answer

Key = tuple[str, str]
"""(source, label)"""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        url: Base URL, to whose path ``/chat/completions`` is added: ``"http://localhost:8000/v1"``. ``user:password@``
            before the host is sent as basic authentication, instead of a key.
        model: Name of the model there.
        key_variable: Environment variable that holds the API key; where it is unset, none is sent.
        timeout: Seconds to wait for an answer.
        attempts: How often the same labels are asked about before giving up.
        pause: Seconds before the second attempt; doubled before each further one.
        batch: Labels per request.
        seed: Passed on; with temperature 0 it makes answers repeatable where the server can.
    """

    url: str = field(repr=False)
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    attempts: int = 3
    pause: float = 1.0
    batch: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # brackets without an address, no port
            usable = False
        if not usable or re.search(r"[^!-~]", self.url):
            raise ConfigError(f"endpoint is '{self.shown}', expected a URL such as http://localhost:8000/v1")
        if not self.model:
            raise ConfigError("the endpoint needs the name of a model")
        for name in ("timeout", "attempts", "batch"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} of the endpoint is {getattr(self, name)}, expected more than 0")

    @property
    def shown(self) -> str:
        """The URL as it may be read by anyone: without what stands before the host or in its query."""
        return _without_secrets(self.url)

    @property
    def authorization(self) -> str:
        """What says to the endpoint who asks; nothing without a key.

        Raises:
            ConfigError: The key has characters that no header can have.
        """
        parts = urllib.parse.urlsplit(self.url)
        if "@" in parts.netloc:
            who = urllib.parse.unquote_to_bytes(parts.netloc.rpartition("@")[0])
            return f"Basic {b64encode(who if b':' in who else who + b':').decode()}"
        key = os.environ.get(self.key_variable, "").strip()
        if re.search(r"[^!-~]", key):
            raise ConfigError(f"${self.key_variable} holds what no HTTP header can, expected a key of printable ASCII")
        return f"Bearer {key}" if key else ""


def _without_secrets(url: str) -> str:
    """A URL without what may be a password or a key, even where it is none that can be parsed."""
    bare = re.sub(r"^([a-zA-Z]+://)?.*@", r"\1", url, flags=re.DOTALL)
    return clean(re.sub(r"[?#].*", "", bare, flags=re.DOTALL))


class _RefusedError(Exception):
    """A request that brought no answer.

    Attributes:
        final: Whether asking again is useless.
    """

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def match_labels_by_endpoint(
    pairs: Sequence[Pair], endpoint: Endpoint, log: Path, rules: Rules | None = None
) -> Concepts:
    """Maps every label of every source to a concept by asking a language model.

    Args:
        pairs: ``(source, label, modality)``.
        endpoint: Whom to ask.
        log: JSON-lines file of all requests and answers; read first, then added to. Never holds the API key.
        rules: Rule file of the user: its ``canonical`` entries win.

    Returns:
        One row per source and label.

    Raises:
        DataError: Labels have no usable answer after all attempts. Names the first ones and why, and how many are fine;
            those are kept in the log and not asked about again.
    """
    run = _Run(pairs, endpoint, log)
    _logger.info(
        "%s, prompt %s: %d labels, %d answered before",
        endpoint.model,
        _digest(run.prompt)[:12],
        len(run.items),
        len(run.accepted),
    )
    run.ask_all()
    if len(run.accepted) < len(run.items):
        raise DataError(run.complaint())
    return _concepts(run.accepted, run.items, rules)


class _Run:
    """The questions about one set of labels, and what is known so far."""

    def __init__(self, pairs: Sequence[Pair], endpoint: Endpoint, log: Path) -> None:
        self.endpoint, self.log = endpoint, log
        self.prompt = _PROMPT.read_text(encoding="utf-8")
        self.items = _items(pairs)
        self.names = sorted({plain(label) for _, label in self.items})
        self.context = _digest(self.prompt, endpoint.model, str(endpoint.seed), *self.names)
        self.accepted = {key: match for key, match in _read_log(log, self.context).items() if key in self.items}
        self.problems: dict[Key, str] = {}

    def ask_all(self) -> None:
        """Asks about everything that has no answer yet, until the endpoint turns out to be unusable."""
        missing = [key for key in self.items if key not in self.accepted]
        size = self.endpoint.batch
        for start in range(0, len(missing), size):
            if not self._ask(missing[start : start + size]):
                break

    def _ask(self, batch: Sequence[Key]) -> bool:
        """Asks about a batch, then again about what had no usable answer. False if asking on is useless."""
        for attempt in range(self.endpoint.attempts):
            keys = [key for key in batch if key not in self.accepted]
            if not keys:
                break
            if attempt:
                time.sleep(self.endpoint.pause * 2 ** (attempt - 1))
            body = self._body(keys)
            answer, accepted, refused = "", dict[Key, Match](), None
            try:
                answer = _post(self.endpoint, body)
                accepted, problems = _read_answer(answer, keys, set(self.names))
            except _RefusedError as error:
                refused, problems = error, dict.fromkeys(keys, str(error))
            self.accepted.update(accepted)
            self.problems.update(problems)
            self._write_log(body, answer, accepted, sorted(set(problems.values())))
            if refused is not None and (refused.final or attempt == self.endpoint.attempts - 1):
                return False
        return True

    def _body(self, keys: Sequence[Key]) -> dict[str, Any]:
        labels = [
            {"id": i, "source": source, "label": label, "modalities": self.items[source, label]}
            for i, (source, label) in enumerate(keys)
        ]
        question = json.dumps({"names": self.names, "labels": labels}, ensure_ascii=False)
        before = sorted({self.problems[key] for key in keys if key in self.problems})
        if before:  # with temperature 0 the same question would get the same answer
            question += "\n\nYour last answer could not be used: " + "; ".join(before[:_SHOWN])
        return {
            "model": self.endpoint.model,
            "temperature": 0,
            "seed": self.endpoint.seed,
            "response_format": {"type": "json_object"},
            "messages": [{"role": "system", "content": self.prompt}, {"role": "user", "content": question}],
        }

    def _write_log(
        self, body: Mapping[str, Any], answer: str, accepted: Mapping[Key, Match], problems: Sequence[str]
    ) -> None:
        entry = {
            "context": self.context,
            "endpoint": self.endpoint.shown,
            "prompt_sha256": hashlib.sha256(self.prompt.encode()).hexdigest(),
            "request": body,
            "answer": answer,
            "problems": list(problems),
            "accepted": [[*key, match.canonical, match.score, match.reason] for key, match in accepted.items()],
        }
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
            torn = file.read(1) not in (b"", b"\n")  # a run was killed while it wrote
            file.write(b"\n" * torn + json.dumps(entry, ensure_ascii=False).encode() + b"\n")

    def complaint(self) -> str:
        """Which labels have no answer and why, and how many have."""
        missing = [key for key in self.items if key not in self.accepted]
        shown = [
            f"'{label}' of source '{source}' ({self.problems.get((source, label), 'not asked')})"
            for source, label in missing[:_SHOWN]
        ]
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        who = f"{self.endpoint.shown}, model '{self.endpoint.model}'"
        return (
            f"{who}: no usable answer for the label {', '.join(shown)}{more} after {self.endpoint.attempts} attempts; "
            f"{len(self.accepted)} of {len(self.items)} labels are fine and kept in {self.log}"
        )


def _items(pairs: Sequence[Pair]) -> dict[Key, list[str]]:
    """Modalities by source and label, in alphabetical order."""
    modalities: dict[Key, set[str]] = defaultdict(set)
    for source, label, modality in pairs:
        modalities[source, label].add(modality)
    return {key: sorted(of) for key, of in sorted(modalities.items())}


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key is for the endpoint that was named, and a question that is sent on would arrive without its body."""

    def redirect_request(self, *_: Any) -> None:
        """None: the redirect is an answer like any other."""


def _post(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    """The text of the answer."""
    parts = urllib.parse.urlsplit(endpoint.url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + "/chat/completions")
    headers = {"Content-Type": "application/json"}
    if who := endpoint.authorization:
        headers["Authorization"] = who
    secret = who.partition(" ")[2] or "\0"

    def hidden(text: object) -> str:
        return clean(str(text).replace(secret, "..."))

    request = urllib.request.Request(urllib.parse.urlunsplit(bare), json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=endpoint.timeout) as response:
            answer = response.read(_MOST_ANSWERED + 1)
        if len(answer) > _MOST_ANSWERED:
            raise _RefusedError(f"an answer of more than {_MOST_ANSWERED} bytes")
        content = from_json(answer)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        hint = f"; is the API key in ${endpoint.key_variable}?" if error.code in (401, 403) else ""
        if 300 <= error.code < 400:
            place = hidden(_without_secrets(error.headers.get("Location") or "nowhere"))
            hint = f"; it redirects to {place}, where no key is sent: expected the URL that answers itself"
        raise _RefusedError(f"HTTP {error.code} {hidden(error.reason)}{hint}", error.code not in _RETRIED) from error
    except TimeoutError as error:
        raise _RefusedError(f"no answer in {endpoint.timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _RefusedError(f"no connection: {hidden(getattr(error, 'reason', error))}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise _RefusedError("the answer is no chat completion") from error
    if not isinstance(content, str):
        raise _RefusedError("the answer is no chat completion")
    return content.replace(secret, "...")


def _read_answer(answer: str, keys: Sequence[Key], names: set[str]) -> tuple[dict[Key, Match], dict[Key, str]]:
    """What of an answer can be used, and what is wrong with the rest."""
    try:
        rows = from_json(answer)["matches"]
        by_id = {row["id"]: row for row in rows}
    except (ValueError, LookupError, TypeError):
        return {}, dict.fromkeys(keys, 'it is not one JSON object {"matches": [{"id": …}, …]}')
    accepted, problems = {}, {}
    for i, key in enumerate(keys):
        row = by_id.get(i)
        problem = f"id {i} is missing" if row is None else _problem(row, names)
        if row is None or problem:
            problems[key] = problem
        else:
            accepted[key] = Match(*key, row["canonical"], float(row["score"]), row["reason"])
    return accepted, problems


def _problem(row: Mapping[str, Any], names: set[str]) -> str:
    canonical, score, reason = row.get("canonical"), row.get("score"), row.get("reason")
    if not isinstance(canonical, str) or canonical not in names:
        return f"canonical {canonical!r} of id {row['id']} is not in names"
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        return f"score {score!r} of id {row['id']} is no number from 0 to 1"
    if not isinstance(reason, str):
        return f"reason {reason!r} of id {row['id']} is no text"
    return ""


def _read_log(log: Path, context: str) -> dict[Key, Match]:
    """Usable answers to the same question: same prompt, model, seed and names."""
    accepted: dict[Key, Match] = {}
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = from_json(line)
            found = [Match(*row) for row in entry["accepted"]] if entry["context"] == context else []
        except (ValueError, LookupError, TypeError):
            _logger.warning("%s, line %d is no log entry and is passed over", log, number)
            continue
        accepted.update({(match.source, match.label): match for match in found})
    return accepted


def _concepts(accepted: Mapping[Key, Match], items: Mapping[Key, list[str]], rules: Rules | None) -> Concepts:
    """Makes one table of single answers: if dalmatian is a dog and dog a hound, dalmatian is a hound.

    A name that some label keeps for itself (the animal mouse) is an end, even if it means something else elsewhere.
    """
    votes: dict[str, list[str]] = defaultdict(list)
    for key in items:
        votes[plain(key[1])].append(accepted[key].canonical)
    step = {
        name: name if name in of else min(set(of), key=lambda other: (-of.count(other), other))
        for name, of in votes.items()
    }
    result = []
    for key in items:
        match = accepted[key]
        ruled = rules.concept_of(*key) if rules else None
        if ruled is not None:
            result.append(Match(*key, ruled, 1.0, "rule"))
        else:
            result.append(Match(*key, _end(match.canonical, step), match.score, match.reason))
    return Concepts(result)


def _end(name: str, step: Mapping[str, str]) -> str:
    """Where the chain of answers leads; of a circle (cup is a mug is a cup) its alphabetically first name."""
    chain = [name]
    while (following := step[chain[-1]]) not in chain:
        chain.append(following)
    return min(chain[chain.index(following) :])
