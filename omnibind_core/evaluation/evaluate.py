"""The report of a model on data: the paper's tables, and how far the answers can be trusted.

Each section is a function of a :class:`~omnibind_core.evaluation.bench.Bench`; :data:`SECTIONS` lists them, and
is the one place where another is added (CONTRIBUTING.md has the recipe).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from omnibind_core.data.damage import NOISE
from omnibind_core.data.matching.wordnet import find_wordnet
from omnibind_core.evaluation import texts
from omnibind_core.evaluation.bench import CONFLICTING, Bench, Extras
from omnibind_core.evaluation.labelling import EMPTY
from omnibind_core.evaluation.methods import AF, MEAN, PLAIN, PROBES, PROBES_DAMAGED
from omnibind_core.evaluation.report import plots
from omnibind_core.evaluation.report.document import SHARE, Column, Plot, Report, Row, Section, Table
from omnibind_core.evaluation.report.plots import Value
from omnibind_core.evaluation.tables import accuracy, paper, retrained, robustness, sources, spaces, targets, trust

_logger = logging.getLogger(__name__)

_MODALITIES = Column("modalities", "modalities")
_METHOD = Column("method", "method")
_N = Column("n", "n", "count")
_LABELS = Column("labels", "labels", "labels")
_MACRO = Column("macro", "macro accuracy, %", "share")
_SEEDS = Column("seeds", "seeds", "count")
_LEAST = 0.01  # share of the answers that a dot of the reliability diagram stands for
_NAMED = 8  # unknown things in the summary
_ACCURACY = (_N, _LABELS, SHARE, _MACRO)
_COST = Column("cost", "cost, points", "points", "cost_interval")
_LOST = (_METHOD, _N, _LABELS, Column("clean", "before, %", "share"), SHARE, _COST)


def evaluate(bench: Bench, names: Iterable[str] | None = None, extras: Extras | None = None) -> Report:
    """Measures everything and puts it into a report.

    Args:
        bench: The model, the data and the methods.
        names: Some of :data:`SECTIONS`; None for all.
        extras: What else goes into it.
    """
    extras = extras or Extras()
    chosen = [name for name in SECTIONS if names is None or name in set(names)]
    sections = []
    for name in chosen:
        started = time.monotonic()
        sections.append(SECTIONS[name](bench, extras))
        _logger.info("%s: %.1f s", name, time.monotonic() - started)
    found = {part.name: part.rows for section in sections for part in section.parts if isinstance(part, Table)}
    head = [_summary(bench, found), _data(bench)]
    return Report("evaluation", f"Evaluation of {bench.model.name}", _facts(bench, extras), [*head, *sections])


def _facts(bench: Bench, extras: Extras) -> dict[str, object]:
    data = bench.data
    trained = [method.name for method in bench.methods.values() if method.name not in (AF, MEAN)]
    return {
        "model": bench.model.identity,
        "labels of the model": len(bench.model.labels),
        "data": data.name,
        **({"by source also": [other.data.name for other in extras.others]} if extras.others else {}),
        "split": data.split,
        "samples": sum(data.known.counts.values()),
        "samples of unknown things": sum(data.unknown.counts.values()),
        **_unknown(bench),
        **_empty(bench),
        **({"samples with nothing to say": len(data.silent)} if data.silent else {}),
        "samples left out": data.counts.get("left out", 0) + data.counts.get("not encoded", 0),
        "modalities": list(data.known.modalities),
        "combinations per figure": bench.count,
        "damaged samples per modality and kind": bench.damage or "all",
        "methods": [AF, MEAN, *trained],
        "seeds of trained baselines": list(bench.training.seeds)
        if set(trained) - {PROBES, PROBES_DAMAGED}
        else "none trained",
        "seed of the draws": bench.seed,
        "intervals": "95 %, bootstrap over the samples",
        **({"no training samples": extras.why_no_train} if extras.why_no_train else {}),
    }


def _unknown(bench: Bench) -> dict[str, object]:
    """The labels of the data that the model lacks, with the number of their samples; nothing if it has all."""
    counts = Counter(sample.label for samples in bench.data.unknown.sets.values() for sample in samples.samples)
    named = [f"{label} ({count})" for label, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    rest = [f"and {len(named) - _NAMED} more labels"] if len(named) > _NAMED else []
    return {"which the model has no label for": [*named[:_NAMED], *rest]} if named else {}


def _empty(bench: Bench) -> dict[str, object]:
    """What became of the labels with an empty concept in the table of the data; nothing if it has none."""
    data, names = bench.data, {*bench.model.labels.names}
    empty = {key: of.concept for key, of in data.labels.items() if of.how == EMPTY}
    if not empty:
        return {}
    count = sum((sample.source, sample.label) in empty for sample in data.samples)
    assert not names & {*empty.values()}
    became = "counted as unknown things (--empty)" if all(empty.values()) else "left out (--empty)"
    labels = f"{len(empty)} label{'' if len(empty) == 1 else 's'}"
    return {"empty canonical": f"{labels}, {count} samples: {became}"}


def _summary(bench: Bench, found: targets.Tables) -> Section:
    goals = Table(
        "targets",
        "Targets and what was measured",
        list(targets.check(found)),
        (
            Column("goal", "goal"),
            Column("condition", "measured where"),
            Column("target", "target"),
            Column("measured", "measured"),
            Column("mean", "Mean"),
            Column("probes", "Probes"),
            Column("verdict", "met"),
        ),
        "Intervals (95 %) in brackets. What Mean meets too is no success of AF. Probes are one ridge classifier per "
        "modality on the same frozen features, fused late.",
    )
    text = (
        "AF is the model's own adaptive fusion; Mean the normalised mean of the embeddings; Probes ridge classifiers "
        "of each modality on frozen trunk features, whose probabilities are averaged; best single the modality that is "
        "right most often. Every answer is one of all labels of the model.\n\n"
        "n counts what was asked: samples, or combinations drawn from them. labels says how many different labels "
        "these show: a figure on few labels says little about others, whatever its interval."
    )
    parts: list[Table | Plot] = [goals] if goals.rows else []
    if "by_size" in found:
        parts.append(_size_plot(found["by_size"], "accuracy_by_size", "Accuracy by number of modalities"))
    return Section("Summary", text, parts)


def _data(bench: Bench) -> Section:
    data = bench.data
    rows: list[Row] = []
    silent = [sample for sample in data.samples if sample.id in data.silent]
    mute = Counter(sample.modality for sample in silent)
    for name in dict.fromkeys((*data.known.sets, *data.unknown.sets, *mute)):
        known, unknown = data.known.sets.get(name), data.unknown.sets.get(name)
        rows.append(
            {
                "modalities": name,
                "n": len(known or ()),
                "labels": 0 if known is None else len(np.unique(known.concept)),
                "n_unknown": len(unknown or ()),
                "labels_unknown": 0 if unknown is None else len(np.unique(unknown.concept)),
                "n_silent": mute[name],
            }
        )
    counts = Counter((sample.source, sample.label) for sample in data.samples)
    names = {*bench.model.labels.names}
    folded: list[Row] = [
        {"label": name, "counts_as": bench.model.labels.names[of]}
        for name, of in zip(bench.model.labels.names, bench.fold, strict=True)
        if bench.model.labels.names[of] != name
    ]
    labels: list[Row] = [
        {
            "source": source,
            "label": label,
            "concept": found.concept or None,
            "known": found.concept in names,
            "how": found.how,
            "n": counts[source, label],
        }
        for (source, label), found in sorted(data.labels.items())
    ]
    columns = (
        _MODALITIES,
        Column("n", "samples", "count"),
        _LABELS,
        Column("n_unknown", "samples of unknown things", "count"),
        Column("labels_unknown", "unknown things", "count"),
        Column("n_silent", "with nothing to say", "count"),
    )
    text = (
        "Unknown things are those that the model has no label for. They are never counted as wrong; they tell how well "
        "the confidence keeps the known and the unknown apart. Labels of the model that the table of the data "
        "(--labels) takes for the same count as one: in answers, in what is asked, and in the confidence, which is "
        "their sum. Samples with nothing to say (silence, no contact, a constant picture) are asked nowhere: they are "
        "neither right nor wrong, and a combination with one is the combination without it, which is asked by itself."
    )
    reasons: list[Row] = [
        {
            "modalities": sample.modality,
            "source": sample.source,
            "label": sample.label,
            "sample": sample.id,
            "reason": data.silent[sample.id],
        }
        for sample in silent
    ]
    return Section(
        "Data",
        text,
        [
            Table("samples", "Samples", rows, columns),
            Table(
                "labels",
                "What each label became",
                labels,
                note="Without a concept a label is left out. Correct it with a table of your own (--labels).",
                folded=True,
            ),
            *([Table("folded", "Labels of the model that count as another", folded)] if folded else []),
            *([Table("silent", "Samples with nothing to say", reasons, folded=True)] if silent else []),
        ],
    )


def _combinations(bench: Bench, extras: Extras) -> Section:
    by_size = list(accuracy.by_size(bench))
    every = list(accuracy.combinations(bench))
    parts: list[Table | Plot] = [
        Table("by_size", "By number of modalities", by_size, (_MODALITIES, _METHOD, *_ACCURACY, _SEEDS), folded=True),
        _size_plot(by_size, "combinations_by_size", "Accuracy by number of modalities, all methods", every=True),
    ]
    pairs = [row for row in every if row["size"] == 2 and row["method"] == AF]
    if pairs:
        names = list(bench.data.known.modalities)
        grid = np.full((len(names), len(names)), np.nan)
        for row in pairs:
            i, j = (names.index(name) for name in row["modalities"].split("+"))
            grid[i, j] = grid[j, i] = row["accuracy"]
        title = "Pairs: accuracy of AF, %"
        parts.append(plots.heat_map("pairs", title, _words(names), _words(names), grid, "accuracy, %"))
    columns = (_MODALITIES, Column("paper", "in the paper"), _METHOD, *_ACCURACY, _SEEDS)
    parts.append(Table("combinations", "All combinations of two and more", every, columns, folded=True))
    text = (
        "By number of modalities a label is drawn first, then which of its modalities, then a sample of each. Linear, "
        "Unseen, Cat and OuterProduct were trained on the training split as AF was."
    )
    return Section("Combinations", text, parts)


def _paper(bench: Bench, extras: Extras) -> Section:
    benches: dict[str, Bench] = {"": bench}
    notes = []
    for setting in (texts.NAMED, texts.DESCRIBED):
        wordnet = find_wordnet() if setting == texts.DESCRIBED else None
        one = texts.with_text(bench, setting, wordnet)
        if one is None:
            notes.append(f"No combination with text that {setting}: the model reads none, or no label has one.")
        else:
            benches[setting] = one
            notes.append(f"Text that {setting}: {len(one.sentences)} labels have it, {one.without} are left out.")
    rows, pairs = list(paper.named(benches)), list(paper.pairs(benches))
    if absent := paper.absent([*rows, *pairs]):
        notes.append(f"The data have no label with all of: {'; '.join(absent)}. There n is 0.")
    if few := paper.few(rows):
        notes.append(f"On one label each, so that an accuracy says little, rest {', '.join(few)}.")
    if PLAIN in bench.methods:
        notes.append("Tables 8 and 12 are af_parts and noise_any.")
    else:
        notes.append(
            "Not in this report, since no fusion was trained for it: Table 8, and the paper's own AF everywhere."
        )
    says = Column("text", "the text")
    columns = [_MODALITIES, says, _METHOD, *_ACCURACY, _SEEDS]
    key = Column("paper", "in the paper")
    wrong = [
        key,
        _MODALITIES,
        says,
        Column("wrong", "noise in"),
        Column("kind", "noise"),
        *_LOST,
    ]
    text = (
        "Text is an input here. Where it names the label, as in the paper (a photo of a {label}), it holds the answer: "
        "such rows tell what a fusion does with a sure token, not how well anything is recognised, and what noise in "
        "it costs (83.6 points in the paper's Table 13). Where it describes the label, no word of the label, its "
        "aliases and its synonyms is left in the description, and the labels are compared without the descriptions "
        "they were trained with. Noise in text is as many random words of the vocabulary. AF is the model's own "
        f"fusion; {PLAIN} is the paper's, trained here. Text alone has no interval: each label has one text."
    )
    return Section(
        "The paper's combinations",
        "\n\n".join([text, " ".join(notes)]),
        [
            Table("paper_combinations", "Combinations that the paper names (Tables 3, 9, 11)", rows, [key, *columns]),
            Table("paper_pairs", "Pairs, and text alone (Table 2)", pairs, columns, folded=True),
            Table(
                "paper_noise",
                "Each modality of these in turn is noise (Table 13)",
                list(paper.noise(benches)),
                wrong,
                folded=True,
            ),
        ],
    )


def _singles(bench: Bench, extras: Extras) -> Section:
    rows = list(accuracy.single(bench))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    names = list(bench.data.known.modalities)
    columns = (_MODALITIES, _METHOD, *_ACCURACY, Column("accuracy_own", "among its own labels, %", "share"))
    wrong = list(accuracy.confusions(bench))
    taken = (
        _MODALITIES,
        Column("label", "label"),
        Column("answer", "answered"),
        Column("times", "times", "count"),
        Column("n", "of", "count"),
        Column("share", "share, %", "share"),
    )
    series = _series(rows, methods, names)
    bars = plots.bars("single_modalities", "Single modalities", _words(names), series, "accuracy, %")
    return Section(
        "Single modalities",
        "The paper's Tables 4 to 6: every sample of a modality alone, among all labels of the model, and among those "
        "that the modality has samples of here.",
        [
            bars,
            Table("single", "Accuracy of single modalities", rows, columns),
            Table("confusions", "Most frequent confusions", wrong, taken, "AF; single samples and drawn pairs."),
        ],
    )


def _sources(bench: Bench, extras: Extras) -> Section:
    rows = list(sources.by_source([bench, *extras.others]))
    columns = (
        Column("data", "data"),
        _MODALITIES,
        Column("source", "source"),
        Column("size", "number", "count"),
        _N,
        _LABELS,
        Column("accuracy", "AF, %", "share", "interval"),
        Column("mean", "Mean, %", "share", "mean_interval"),
        Column("probes", "Probes, %", "share", "probes_interval"),
        Column("best", "best"),
        Column("confidence", "mean confidence, %", "share"),
        Column("ece", "ECE", "number", "ece_interval"),
    )
    text = (
        "A sensor is recognised as well as its source is like those that the model was trained with. Alone, every "
        "sample of the source is asked; by number of modalities, it stands beside samples of other modalities, of any "
        "source. Confidence and ECE are AF's."
    )
    return Section("Sources", text, [Table("by_source", "By modality and source", rows, columns)])


def _retrieval(bench: Bench, extras: Extras) -> Section:
    rows = list(accuracy.retrieval(bench))
    names = ["text", *bench.data.known.modalities]
    grid = np.full((len(names), len(names)), np.nan)
    for row in rows:
        grid[names.index(row["query"]), names.index(row["gallery"])] = row["recall_1"]
    columns = (
        Column("query", "query"),
        Column("gallery", "searched"),
        Column("n", "queries", "count"),
        _LABELS,
        Column("items", "items searched", "count"),
        *(Column(f"recall_{rank}", f"recall@{rank}, %", "share", f"interval_{rank}") for rank in accuracy.RANKS),
    )
    note = "Rows ask, columns are searched. An item of the same label is a hit. Text is the labels' own embeddings."
    parts: list[Table | Plot] = [
        plots.heat_map("retrieval_map", "Recall@1, %", _words(names), _words(names), grid, "recall@1, %", note=note),
        Table("retrieval", "Retrieval across modalities", rows, columns, folded=True),
    ]
    text = "Queries whose label has no item in what is searched are left out, as are combinations without any query."
    return Section("Retrieval", text, parts)


def _noise(bench: Bench, extras: Extras) -> Section:
    rows = list(robustness.noise(bench))
    columns = (
        _MODALITIES,
        Column("wrong", "wrong sensor"),
        Column("kind", "what is wrong"),
        *_LOST,
    )
    parts: list[Table | Plot] = []
    for fault, name in ((NOISE, "noise_plot"), (CONFLICTING, "conflict_plot")):
        part = [row for row in rows if row["wrong"] == robustness.ANY and row["kind"] == fault]
        if part:
            title = f"One random sensor: {fault}"
            parts.append(_size_plot(part, name, title))
    for size in (3, 2):
        part = [row for row in rows if row["modalities"] == size and row["method"] == AF]
        if part:
            parts.append(_cost_map(part, size))
            break
    any_one = [row for row in rows if row["wrong"] == robustness.ANY]
    each = [row for row in rows if row["wrong"] != robustness.ANY]
    worst = list(_worst(each))
    parts += [
        Table("noise_worst", "Worst sensor of each kind", worst, columns, "The modality with the largest cost."),
        Table("noise_any", "A random sensor is wrong (Table 12)", any_one, columns, folded=True),
        Table("noise_each", "Each sensor in turn is wrong", each, columns, folded=True),
    ]
    text = (
        "One sensor of a combination is wrong: damaged, replaced by noise of its shape (noise only), showing something "
        "else (another label), or showing what was there before (stuck frame). Unseen noise replaces it by noise of "
        "another family than any in training. Cost is the difference to the same combinations before, in percentage "
        f"points.\n\n{_taught(bench)}"
    )
    return Section("Wrong sensors", text, parts)


def _missing(bench: Bench, extras: Extras) -> Section:
    rows = list(robustness.missing(bench))
    trained = Column("trained_with", "absence in training")
    columns = (_METHOD, trained, Column("absence", "absence now"), *_ACCURACY, _SEEDS)
    text = (
        "Which modality is absent depends on the label (the setting of MultiModN). A fusion that was trained so may "
        "take an absence for a hint at the label, and fail when the absences change. Combinations have all modalities "
        "of their label but one; there are two patterns of absence, and figures are the mean of both ways round."
    )
    table = Table("missing", "Absence that depends on the label", rows, columns)
    return Section("Missing not at random", text, [table])


def _several(bench: Bench, extras: Extras) -> Section:
    rows = list(robustness.several(bench))
    columns = (
        Column("modalities", "first sensors"),
        Column("second", "further sensor"),
        Column("second_is", "which is"),
        _METHOD,
        _N,
        _LABELS,
        Column("one", "without it, %", "share"),
        SHARE,
        Column("gain", "gain, points", "points", "gain_interval"),
    )
    alone = [row for row in rows if "+" not in row["modalities"]]
    text = "Two cameras, two microphones: a further sensor of a modality that is there already, showing the same thing."
    parts = [
        Table("several", "Two sensors of one modality against one", alone, columns),
        Table(
            "several_beside",
            "The same beside another modality",
            [row for row in rows if "+" in row["modalities"]],
            columns,
            folded=True,
        ),
    ]
    return Section("Several sensors of one modality", text, parts)


def _confidence(bench: Bench, extras: Extras) -> Section:
    errors, bins = list(trust.calibration(bench)), list(trust.reliability(bench))
    ood, risk = list(trust.unknown(bench)), list(trust.risk_coverage(bench))
    diagram: dict[str, list[tuple[float, float, int]]] = {}
    for row in bins:
        if row["n"] >= _LEAST * bench.count:  # the accuracy of few answers says nothing
            point = row["confidence"], row["accuracy"], row["n"]
            diagram.setdefault(_sized(row["modalities"]), []).append(point)
    curves: dict[str, list[tuple[float, float, tuple[float, float] | None]]] = {}
    for row in risk:
        if row["method"] == AF:
            spot = 100 * row["coverage"], row["accuracy"], row["interval"]
            curves.setdefault(_sized(row["modalities"]), []).append(spot)
    ece = Column("ece", "ECE", "number", "ece_interval")
    confidence = Column("confidence", "mean confidence, %", "share")
    accurate = Column("accuracy", "accuracy, %", "share")
    note = (
        f"ECE over {trust.BINS} equal bins; its bootstrap interval lies above it when there are few errors. Mean has "
        "the temperatures of the model, which were fitted for AF."
    )
    unknown = (
        _MODALITIES,
        Column("unknown", "unknown are"),
        _METHOD,
        Column("n", "known", "count"),
        _LABELS,
        Column("n_unknown", "unknown", "count"),
        Column("labels_unknown", "things", "labels"),
        Column("auroc", "AUROC", "number", "interval"),
        Column("known_answered", "answered, %", "share"),
        Column("unknown_refused", "refused, %", "share"),
    )
    outside = (
        "AUROC of the confidence. Labels taken away were known to the encoders, only the answer is missing; answered "
        "(of the known) and refused (of the unknown) are by the model's own threshold."
    )
    parts: list[Table | Plot] = [
        plots.reliability(
            "reliability_diagram",
            "Reliability of AF",
            diagram,
            note=f"Area of a dot: share of answers; bins with less than {_LEAST:.0%} of them are left out.",
        ),
        Table(
            "calibration",
            "Calibration error",
            errors,
            (Column("size", "number", "count"), _MODALITIES, _METHOD, _N, _LABELS, accurate, confidence, ece),
            note,
            folded=len(errors) > 24,
        ),
        Table("reliability", "Bins of the reliability diagram", bins, folded=True),
        Table("unknown", "Unknown things", ood, unknown, outside),
        Table(
            "unknown_single", "Unknown things, each modality alone", list(trust.unknown_single(bench)), unknown, outside
        ),
        plots.lines("risk", "Accuracy of the surest answers", curves, ("answered, %", "accuracy, %")),
        Table("risk_coverage", "Risk and coverage", risk, folded=True),
    ]
    return Section(
        "Confidence", "Is a confidence of 80 % right in 80 % of the cases, and low for what is unknown?", parts
    )


def _spaces(bench: Bench, extras: Extras) -> Section:
    picture = spaces.picture(bench)
    rows = list(spaces.neighbours(bench))
    columns = (Column("space", "space"), _MODALITIES, Column("among", "nearest of"), _N, _LABELS, SHARE)
    table = Table("neighbours", "Nearest sample has the same label", rows, columns)
    text = (
        "The paper's Fig. 5a and b. Alignment has worked where the nearest sample of another modality shows the same "
        "thing."
    )
    return Section("Before and after alignment", text, [*([picture] if picture else []), table])


def _retrained(bench: Bench, extras: Extras) -> Section:
    parts: list[Table | Plot] = []
    missing: list[str] = []
    compared = dict(extras.compared)
    columns = [_MODALITIES, _METHOD, *_ACCURACY, _SEEDS]
    if bench.train is not None and (extras.retrain or bench.training.names):
        parts.append(Table("af_parts", "Parts of AF (Table 8)", list(retrained.parts(bench)), columns))
    else:
        missing.append(
            "the parts of AF (Table 8) are trained with the baselines (--baselines), where there are samples"
        )
    if extras.retrain and bench.train is not None:
        rows = list(retrained.training_modalities(bench))
        columns = [Column("trained_on", "trained on"), *columns]
        parts.append(Table("training_modalities", "Number of training modalities (Fig. 5c)", rows, columns))
        todo = [name for name in ("ablation", "few-shot", "left-out") if name not in compared]
        if extras.config is not None and todo:
            compared |= retrained.trained(extras.config, todo, bench.training.seeds, bench.count)
    else:
        missing.append("--retrain trains by number of training modalities (Fig. 5c)")
    for name, title in retrained.COMPARED.items():
        if name in compared:
            key = f"compare_{name.replace('-', '_')}"
            columns = [Column("table", "table"), Column("condition", "condition"), _METHOD, _SEEDS, SHARE]
            parts.append(Table(key, title, compared[name], columns, "Mean and 95 % interval over seeds.", folded=True))
    absent = [name for name in ("ablation", "few-shot", "left-out") if name not in compared]
    if absent:
        command = f"omnibind train compare --config lite --set data=DIR --tables {' '.join(absent)} --out COMPARED"
        missing.append(f"losses (Table 7), few samples and labels left out: {command}, then eval --compare COMPARED")
    text = "Tables that need training." + "".join(f"\n\nNot in this report. {one}." for one in missing)
    return Section("What only training tells", text, parts)


SECTIONS: dict[str, Callable[[Bench, Extras], Section]] = {
    "combinations": _combinations,
    "paper": _paper,
    "single": _singles,
    "sources": _sources,
    "retrieval": _retrieval,
    "noise": _noise,
    "missing": _missing,
    "several": _several,
    "confidence": _confidence,
    "spaces": _spaces,
    "retrained": _retrained,
}
"""The sections by the name that ``--tables`` takes."""


def _taught(bench: Bench) -> str:
    """Who was trained with wrong sensors, in words."""
    settings, sets = bench.training.fuse, () if bench.train is None else bench.train.sets.values()
    harmed = any(samples.damaged is not None for samples in sets)
    how = f"damaged samples: {'yes' if harmed else 'no'}, conflicting ones: {settings.conflict:.0%} of the combinations"
    trained = f"Fusions trained here were taught as the model's own ({how}), for {settings.steps} steps at most. "
    return (trained if PLAIN in bench.methods else "") + (
        "Mean learns nothing; Probes never saw a wrong sensor; Probes with damage, where there are any, saw the "
        "damaged samples, but no conflicting ones, since each is of one modality."
    )


def _worst(rows: Sequence[Row]) -> Iterable[Row]:
    groups: dict[tuple[int, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["modalities"], row["kind"], row["method"]), []).append(row)
    for group in groups.values():
        yield min(group, key=lambda row: row["cost"])


def _cost_map(rows: Sequence[Row], size: int) -> Plot:
    faults = list(dict.fromkeys(row["kind"] for row in rows))
    sensors = list(dict.fromkeys(row["wrong"] for row in rows))
    grid = np.full((len(sensors), len(faults)), np.nan)
    for row in rows:
        grid[sensors.index(row["wrong"]), faults.index(row["kind"])] = row["cost"]
    title = f"Cost of one wrong sensor of {size}, AF, percentage points"
    low = min(-1.0, 100 * float(np.nanmin(grid)))
    return plots.heat_map("noise_map", title, _words(sensors), faults, grid, "points", limits=(low, 0.0))


def _size_plot(rows: Sequence[Row], name: str, title: str, every: bool = False) -> Plot:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    shown = methods if every else [m for m in methods if m in (AF, MEAN, PROBES)]
    sizes = list(dict.fromkeys(row["modalities"] for row in rows))
    series = _series(rows, shown, sizes)
    return plots.bars(name, title, [_sized(size) for size in sizes], series, "accuracy, %")


def _series(rows: Sequence[Row], methods: Sequence[str], groups: Sequence[object]) -> dict[str, list[Value]]:
    cells = {(row["method"], row["modalities"]): (row["accuracy"], row["interval"]) for row in rows}
    return {method: [cells.get((method, group)) for group in groups] for method in methods}


def _sized(size: int) -> str:
    return f"{size} modalit{'y' if size == 1 else 'ies'}"


def _words(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]
