"""The view of a bag: its sensors, and what the fusion node's runtime makes of it in the bag's own time."""

from __future__ import annotations

import sys
from pathlib import Path

from omnibind_core.errors import DataError, InvalidInputError
from omnibind_ros.bags import read, types
from omnibind_ros.replay.batch import progress_bar
from omnibind_ros.replay.engine import Replay, load_model
from omnibind_ros.replay.evaluation import LABELS
from omnibind_ros.replay.objects.following import Following
from omnibind_ros.replay.setup import Setup, read_parameters, resolve
from omnibind_ros.replay.truth import from_table
from omnibind_ros.view.canvas import Canvas
from omnibind_ros.view.feed import Feed


def run(
    canvas: Canvas,
    rate: float,
    path: Path,
    model: str | None = None,
    params: Path | None = None,
    labels: Path | None = None,
) -> int:
    """Shows a bag from beginning to end, with things if the parameters ask for them.

    Args:
        canvas: Where to.
        rate: Pictures a second of each sensor at most.
        path: Folder of the bag, or its only file.
        model: Name or folder of the model; ``None`` takes the parameters' one.
        params: Parameter file; ``None`` takes the package's, and topics that look like a sensor's.
        labels: Table of what was there; ``None`` takes the one in the bag's folder, if there is one.

    Returns:
        0, or 1 if the bag could not be read to its end: then what is before is shown.

    Raises:
        ConfigError: A parameter is unusable.
        DataError: There is no readable bag, no sensor in it, or no readable table.
        WeightsError: The model cannot be read.
    """
    topics = read.topics(path)
    setup = resolve(topics, read_parameters(params), adopt=params is None, bag=path)
    loaded = load_model(setup, model)
    things = None if setup.parameters.objects is None else Following(loaded, setup, topics)
    hears = None if things is None else things.listeners
    replay = Replay(path, setup, loaded, identity=loaded.identity, listeners=hears)
    canvas.arrange({name: setup.sensors[name].config.modality for name in setup.present})
    for note in setup.notes:
        print(note, file=sys.stderr)
    table = path / LABELS if labels is None else labels
    if labels is not None or table.is_file():
        canvas.truth(from_table(table, replay.start_ns, replay.end_ns, path.stem).segments())
    _show_messages(canvas, rate, path, setup)
    ticks = predictions = 0
    seconds = (replay.end_ns - replay.start_ns) / 1e9
    with progress_bar("replaying", seconds) as progress:
        for step in replay.steps(progress):
            now_ns = step.selection.now_ns
            ticks += 1
            if step.prediction is None:
                canvas.nothing(now_ns)
            else:
                predictions += 1
                canvas.prediction(step.prediction)
            if things is not None:
                canvas.things(now_ns, things.add(step).things)
            canvas.states(now_ns, [report for report in step.reports if report.name in setup.present])
    print(f"{path}: {seconds:.1f} s, {ticks} ticks, {predictions} predictions, sensors {', '.join(setup.present)}")
    if replay.damage:
        print(f"omnibind: {read.extent(replay.damage, replay.partly)}", file=sys.stderr)
    return 1 if replay.damage else 0


def _show_messages(canvas: Canvas, rate: float, path: Path, setup: Setup) -> None:
    """Shows what the sensors recorded. Where a bag is damaged it ends, as the replay does, which tells."""
    feeds: dict[str, list[Feed]] = {}
    for name in setup.present:
        sensor = setup.sensors[name]
        feed = Feed(canvas, name, sensor.config.modality, sensor.options, rate)
        feeds.setdefault(setup.topics[name], []).append(feed)
    try:
        for item in read.messages(path, list(feeds)):
            try:
                message = types.decode(item)
            except InvalidInputError as error:
                canvas.say(item.time_ns, str(error), good=False)
                continue
            for feed in feeds[item.topic]:
                feed.push(item.time_ns, item.type, message)
    except DataError:
        return
