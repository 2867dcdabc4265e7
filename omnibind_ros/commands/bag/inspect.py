"""``omnibind bag inspect``."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnibind_ros.bags.inspect import BagSummary, EventSummary, TopicSummary

_FULL = 12  # topics about which all is said
_SCREEN = 24  # lines of the smallest screen
_AROUND = 6  # lines of a screen for what stands around the lists
_WIDEST = 160  # letters of a line
_LONGEST = 60  # letters of a name in it


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the action."""
    text = "print the topics of a bag, their rates, which modality they feed, and all events"
    inspect = actions.add_parser("inspect", help=text, description=text)
    inspect.add_argument("bag", type=Path, metavar="BAG", help="folder of a rosbag2, or a recording's file")
    inspect.add_argument(
        "--all", action="store_true", help="all about every topic, also where it fills several screens"
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    """Returns 0, or 1 if the bag could not be read to its end."""
    from omnibind_ros.bags import read
    from omnibind_ros.bags.inspect import inspect

    summary = inspect(args.bag)
    if args.json:
        print(json.dumps(_plain(summary), indent=2, ensure_ascii=False))
    elif args.all or len(summary.topics) <= _FULL:
        print("\n".join([*_head(summary), *_lines(summary)]))
    else:
        print("\n".join([*_head(summary), *_overview(summary.topics)]))
    if summary.damage:
        print(f"omnibind: {read.extent(summary.damage, summary.partly)}", file=sys.stderr)
    return 1 if summary.damage else 0


def _plain(summary: BagSummary) -> dict[str, Any]:
    topics = [
        {
            **dataclasses.asdict(topic),
            "span_s": topic.span_s,
            "rate": topic.rate,
            "events": None if topic.events is None else _plain_events(topic.events),
        }
        for topic in summary.topics
    ]
    return {
        "path": summary.path,
        "start_ns": summary.start_ns,
        "span_s": summary.span_s,
        "messages": summary.messages,
        "damage": summary.damage,
        "partly": summary.partly,
        "topics": topics,
    }


def _plain_events(events: EventSummary) -> dict[str, Any]:
    return {**dataclasses.asdict(events), "darker": events.events - events.brighter, "span_s": events.span_s}


def _head(summary: BagSummary) -> Iterator[str]:
    yield f"{summary.path}: {summary.messages} messages on {len(summary.topics)} topics in {summary.span_s:.3f} s"
    if summary.start_ns is not None:
        start = datetime.datetime.fromtimestamp(summary.start_ns / 1e9, datetime.timezone.utc)
        yield f"from {start.isoformat(sep=' ', timespec='milliseconds')}"


def _short(name: str) -> str:
    """A name that leaves room for the rest of its line: the begin and the end, which differ, of a long one."""
    end = 2 * _LONGEST // 3
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - end - 3]}...{name[-end:]}"


def _overview(topics: Sequence[TopicSummary]) -> Iterator[str]:
    """A line for each sensor, and one for each type of all others, on one screen."""
    sensors = [topic for topic in topics if topic.modality]
    others = [topic for topic in topics if not topic.modality]
    room = max(shutil.get_terminal_size().lines, _SCREEN) - _AROUND
    shown = sensors[: room if len(sensors) <= room and not others else room // 2]
    width = max((len(_short(topic.topic)) for topic in shown), default=0)
    for topic in shown:
        rate = "" if topic.rate is None else f" at {topic.rate:.1f} Hz"
        what = topic.content or topic.type
        bad = f"; {topic.rejected} unusable: {topic.reason}" if topic.rejected else ""
        yield f"{_short(topic.topic):{width}}  {topic.modality:11}  {topic.messages} messages{rate}, {what}{bad}"[
            :_WIDEST
        ]
    if len(sensors) > len(shown):
        yield f"and {len(sensors) - len(shown)} more that feed a modality"
    groups: dict[tuple[bool, str], list[TopicSummary]] = {}
    for topic in others:
        groups.setdefault((topic.skipped, topic.type), []).append(topic)
    ordered = sorted(groups.values(), key=lambda group: (not group[0].skipped, -len(group)))
    if others:
        yield f"{len(others)} topics feed nothing (--all shows each of them):"
    left = room - len(shown)
    for group in ordered if len(ordered) <= left else ordered[: left - 1]:
        names = f"{_short(group[0].topic)}, ..." if len(group) > 1 else _short(group[0].topic)
        count = f"{sum(topic.messages for topic in group)} messages"
        reason = f"; cannot be read: {group[0].reason}" if group[0].skipped else ""
        yield f"  {len(group):3} {group[0].type or 'without a type'}: {names} ({count}){reason}"[:_WIDEST]
    if len(ordered) > left:
        rest = ordered[left - 1 :]
        yield f"  {sum(map(len, rest)):3} of {len(rest)} other types"


def _lines(summary: BagSummary) -> Iterator[str]:
    for topic in sorted(summary.topics, key=lambda one: not one.modality):
        yield ""
        yield from _topic_lines(topic)


def _topic_lines(topic: TopicSummary) -> Iterator[str]:
    yield f"{topic.topic}  ({topic.type or 'without a type'})"
    if topic.skipped:
        yield f"  {topic.messages} messages, which cannot be read: {topic.reason}"
        return
    rate = "" if topic.rate is None else f" at {topic.rate:.2f} Hz"
    yield f"  {topic.messages} messages{rate} in {topic.span_s:.3f} s" + (f": {topic.content}" if topic.content else "")
    yield f"  feeds: {topic.modality or 'nothing'}"
    if topic.rejected:
        yield f"  {topic.rejected} unusable, the last: {topic.reason}"
    events = topic.events
    if events is None:
        return
    share = f"{events.brighter} brighter, {events.events - events.brighter} darker"
    rate = f", {events.events / events.span_s:.0f} a second" if events.span_s else ""
    yield f"  {events.events} events of {events.width} x {events.height} pixels: {share}{rate}"
    if events.first_us is not None and events.last_us is not None:
        span = f"from {events.first_us / 1e6:.6f} s to {events.last_us / 1e6:.6f} s"
        yield f"  time: {events.span_s:.6f} s, {span} on the events' clock"
    if events.encoding:
        edges = ", ".join(f"{count} at {edge}" for edge, count in events.triggers.items())
        yield f"  triggers: {edges or 'none'}"
        lost = f"{events.gaps} gaps, {events.unplaced} events left out after them, {events.malformed} malformed words"
        yield f"  encoding {events.encoding}: {lost}"
    yield f"  decoded in {events.decode_s:.3f} s"
