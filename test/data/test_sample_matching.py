"""Sample-level matching, and the descriptions that it rests on."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.matching import samples
from omnibind_core.data.matching.samples import Pairs, match_descriptions, match_samples, mutual_nearest, write_matches
from omnibind_core.data.modality_free.descriptions import (
    Captioner,
    describe,
    read_attributes,
    read_descriptions,
    write_descriptions,
)
from omnibind_core.data.samples import Sample
from omnibind_core.errors import ConfigError, DataError, InvalidInputError, MissingDependencyError


def pairs_of(found: Pairs) -> list[tuple[int, int]]:
    return list(zip(found.a.tolist(), found.b.tolist(), strict=True))


def twins(count: int, noise: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two views of the same rows in clusters of 20."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count // 20, 32), dtype=np.float32)
    rows = centres[rng.integers(0, len(centres), count)] + 0.5 * rng.standard_normal((count, 32), dtype=np.float32)
    a, b = (rows + noise * rng.standard_normal(rows.shape, dtype=np.float32) for _ in range(2))
    return a, b


def test_only_mutual_matches_above_the_threshold() -> None:
    a = np.array([[1, 0], [0.9, 0.1], [0, -1]], np.float32)
    b = np.array([[2, 0.2], [0, 1], [-1, -1]], np.float32)
    assert pairs_of(mutual_nearest(a, b, 0.9)) == [(1, 0)]  # row 0 also likes row 0 best, but is not liked best
    assert pairs_of(mutual_nearest(a, b, 0.7)) == [(1, 0), (2, 2)]
    assert pairs_of(mutual_nearest(a, b, 1.0)) == []


def test_agrees_with_the_whole_matrix(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((300, 8)), rng.standard_normal((200, 8))
    cosine = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    to_b, to_a = cosine.argmax(axis=1), cosine.argmax(axis=0)
    expected = [(i, int(to_b[i])) for i in range(300) if to_a[to_b[i]] == i and cosine[i, to_b[i]] >= 0.5]
    found = mutual_nearest(a, b, 0.5)
    assert pairs_of(found) == expected
    np.testing.assert_allclose(found.score, [cosine[pair] for pair in expected], atol=1e-6)
    swapped = mutual_nearest(b, a, 0.5)
    assert sorted((j, i) for i, j in pairs_of(swapped)) == expected


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = twins(500, 0.4)
    whole = mutual_nearest(a, b, 0.0)
    monkeypatch.setattr("omnibind_core.data.matching.samples._BLOCK", 64)
    assert pairs_of(mutual_nearest(a, b, 0.0)) == pairs_of(whole)


@pytest.mark.parametrize("block", [1, 2, 4096])
def test_of_rows_that_are_as_near_the_first_is_taken(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_BLOCK", block)
    between, axes = np.array([[1, 1, 1]], np.float32), np.eye(3, dtype=np.float32)
    assert pairs_of(mutual_nearest(between, axes, 0.5)) == [(0, 0)]
    assert pairs_of(mutual_nearest(axes, between, 0.5)) == [(0, 0)]


def test_the_threshold_is_the_least_cosine_that_counts() -> None:
    right, left = np.array([[3.0, 0.0]]), np.array([[-0.5, 0.0]])
    assert mutual_nearest(right, right, 1).score.tolist() == [1.0]
    assert mutual_nearest(right, left, -1).score.tolist() == [-1.0]
    assert pairs_of(mutual_nearest(right, left, -0.99)) == []
    diagonal = np.array([[1.0, 1.0]])
    assert len(mutual_nearest(right, diagonal, 0.7071).a) == 1 and len(mutual_nearest(right, diagonal, 0.7072).a) == 0
    for wrong in (-1.01, 1.01):
        with pytest.raises(ConfigError, match=str(wrong)):
            mutual_nearest(right, right, wrong)


def test_the_cosine_of_equal_directions_is_never_above_one(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((500, 7), dtype=np.float32)
    found = mutual_nearest(rows, 3 * rows, 0.5)
    assert len(found.a) == 500 and found.score.min() > 1 - 1e-6 and found.score.max() <= 1
    assert [part.dtype for part in found] == [np.int64, np.int64, np.float32]
    assert [part.dtype for part in mutual_nearest(rows, -rows[:1], 1)] == [np.int64, np.int64, np.float32]


@pytest.mark.parametrize("shapes", [((3,), (3, 3)), ((3, 3), (3,)), ((3, 3), (3, 4)), ((1, 3, 3), (3, 3))])
def test_embeddings_are_rows_of_one_width(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(DataError, match=r"expected \[N, D\] and \[M, D\]"):
        mutual_nearest(*(np.ones(shape) for shape in shapes), 0.5)


def test_the_first_wrong_embedding_is_named_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_BLOCK", 2)
    rows = np.ones((7, 3))
    rows[3], rows[6] = 0, np.inf
    with pytest.raises(DataError, match="'d' is zero or not finite; 5 others"):
        match_samples("abcdefg", rows, ["p"], np.ones((1, 3)), 0.5)
    with pytest.raises(DataError, match="'b' occurs twice; 3 names"):
        match_samples("abcbc", np.ones((5, 3)), ["p"], np.ones((1, 3)), 0.5)


def test_equal_descriptions_are_shared_out(rng: np.random.Generator) -> None:
    dog, cat, bird = np.eye(3, dtype=np.float32)
    a, b = np.stack([dog, cat, dog, dog]), np.stack([dog, bird, dog, cat])
    assert pairs_of(mutual_nearest(a, b, 0.5)) == [(0, 0), (1, 3), (2, 2)]


def test_nothing_to_match() -> None:
    empty, some = np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)
    for a, b in itertools.product((empty, some), repeat=2):
        assert len(mutual_nearest(a, b, 0.5).a) == min(len(a), len(b))
    assert match_descriptions({}, {}, lambda texts: np.zeros((len(texts), 4), np.float32), 0.5) == []


def test_approximate_search_finds_nearly_all_and_the_same_twice() -> None:
    pytest.importorskip("faiss")
    a, b = twins(8000, 0.25)
    exact = set(pairs_of(mutual_nearest(a, b, 0.3)))
    found = mutual_nearest(a, b, 0.3, exact_pairs=0, seed=3)
    assert len(exact) > 7000
    assert len(exact & set(pairs_of(found))) >= 0.98 * len(exact)
    again = mutual_nearest(a, b, 0.3, exact_pairs=0, seed=3)
    assert pairs_of(again) == pairs_of(found)
    np.testing.assert_array_equal(again.score, found.score)


def test_how_the_approximate_search_is_set_up(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """As it was measured for docs/data.md: 2 sqrt(N) lists trained on 64 rows each, 32 of them searched."""
    faiss: Any = pytest.importorskip("faiss")
    assert samples.EXACT_PAIRS == 1_000_000_000
    made: list[Any] = []
    trained: list[int] = []
    threads: list[int] = []
    make, limit = faiss.IndexIVFScalarQuantizer, faiss.omp_set_num_threads

    def watched(*arguments: Any) -> Any:
        index = make(*arguments)
        train = index.train

        def watched_train(rows: NDArray[np.float32]) -> None:
            trained.append(len(np.unique(rows, axis=0)))
            train(rows)

        index.train = watched_train
        made.append(index)
        return index

    monkeypatch.setattr(faiss, "IndexIVFScalarQuantizer", watched)
    monkeypatch.setattr(faiss, "omp_set_num_threads", lambda count: (threads.append(count), limit(count)))
    before = faiss.omp_get_max_threads()
    a = rng.standard_normal((16_900, 4), dtype=np.float32)
    b = a[:500] + 1e-3
    found = mutual_nearest(a, b, 0.9, exact_pairs=500 * 16_900 - 1, seed=5)
    assert len(found.a) > 450 and (found.a == found.b).mean() > 0.95
    assert [(index.nlist, index.nprobe, index.cp.seed, index.ntotal) for index in made] == [
        (7, 7, 5, 500),  # no more lists than there are rows to train them
        (260, 32, 5, 16_900),
    ]
    assert trained == [7 * 64, 260 * 64]
    assert {index.sq.qtype for index in made} == {faiss.ScalarQuantizer.QT_fp16}
    assert threads == [1, before]
    made.clear()
    some = rng.standard_normal((200, 4), dtype=np.float32)
    assert pairs_of(mutual_nearest(some, some, 0.9, exact_pairs=0, threads=2)) == [(i, i) for i in range(200)]
    assert [(index.nlist, index.nprobe, index.cp.seed) for index in made] == [(3, 3, 0)] * 2
    assert threads == [1, before, 2, before]
    mutual_nearest(some, some, 0.9, exact_pairs=200 * 200)  # every pair is compared
    mutual_nearest(some[:5], some[:7], 0.9, exact_pairs=0)
    assert [index.nlist for index in made] == [3, 3, 1, 1]


def test_reads_memory_maps(tmp_path: Path) -> None:
    a, b = twins(400, 0.2)
    np.save(tmp_path / "a.npy", a.astype(np.float16))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert pairs_of(mutual_nearest(mapped, b, 0.3)) == pairs_of(mutual_nearest(a.astype(np.float16), b, 0.3))


def test_matches_have_names_and_a_table(tmp_path: Path) -> None:
    rows = np.eye(2, dtype=np.float32)
    found = match_samples(["x", "y"], rows, ["p", "q, r"], rows[::-1] + 0.1, 0.5)
    assert [(m.id_a, m.id_b) for m in found] == [("x", "q, r"), ("y", "p")]
    assert found[0].score == pytest.approx(1.1 / np.hypot(1.1, 0.1), abs=1e-6)
    write_matches(tmp_path / "matches.csv", found)
    assert (tmp_path / "matches.csv").read_bytes() == b'id_a,id_b,score\nx,"q, r",0.9959\ny,p,0.9959\n'


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        (["x"], np.ones((2, 3)), "1 sample names for 2"),
        (["x", "x"], np.ones((2, 3)), "'x' occurs twice"),
        (["x", "y"], np.array([[1.0, 0, 0], [0, 0, 0]]), "'y' is zero or not finite; 1 others"),
        (["x", "y"], np.array([[1.0, 0, np.nan], [1, 0, 0]]), "'x' is zero or not finite"),
        (["x", "y"], np.ones((2, 4)), r"\(2, 4\)"),
    ],
)
def test_wrong_embeddings_are_named(ids: list[str], rows: NDArray[np.float64], message: str) -> None:
    with pytest.raises(DataError, match=message):
        match_samples(ids, rows, ["p"], np.ones((1, 3)), 0.5)
    with pytest.raises(ConfigError, match=r"1\.5"):
        mutual_nearest(rows, rows, 1.5)


def test_names_go_with_the_side_that_they_are_of() -> None:
    axes = np.eye(3, dtype=np.float32)
    found = match_samples(["x", "y", "z"], axes, ["p", "q"], axes[[2, 1]], 0.5)
    assert found == [("y", "q", 1.0), ("z", "p", 1.0)]


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Letter counts: enough to tell descriptions apart."""
    return np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], np.float32)


def test_descriptions_are_embedded_once_each() -> None:
    asked: list[str] = []

    def watched(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return embed(texts)

    images = {"i1": "a black dog", "i2": "a car", "i3": "a car"}
    sounds = {"s1": "a car", "s2": "a blak dog"}
    found = match_descriptions(images, sounds, watched, 0.9)
    assert [(m.id_a, m.id_b) for m in found] == [("i1", "s2"), ("i2", "s1")]
    assert asked == ["a car", "a blak dog", "a black dog"]  # by length: batches of a text model are padded less


def test_so_many_samples_need_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows, texts = np.eye(2, dtype=np.float32), {"1": "a car", "2": "a dog"}
    assert len(match_samples(list(texts), rows, list(texts), rows, 0.5, exact_pairs=4)) == 2
    assert len(match_descriptions(texts, texts, embed, 0.5, exact_pairs=4)) == 2
    with pytest.raises(MissingDependencyError, match="faiss"):
        match_samples(list(texts), rows, list(texts), rows, 0.5, exact_pairs=3)
    with pytest.raises(MissingDependencyError, match="faiss"):
        match_descriptions(texts, texts, embed, 0.5, exact_pairs=3)


SAMPLES = [
    Sample("1", "image", "s", "1.png", "wild_cat", "train", "g"),
    Sample("2", "audio", "s", "2.wav", "dog", "train", "h"),
]


def test_template() -> None:
    assert describe(SAMPLES) == {"1": "a wild cat", "2": "a dog"}
    attributes = {"1": {"colour": "grey"}, "2": {"colour": "black"}}
    concepts = Concepts([Match("s", "wild_cat", "cat", 1, ""), Match("s", "dog", "dog", 1, "")])
    assert describe(SAMPLES, "a {colour} {concept}", attributes, concepts)["1"] == "a grey cat"
    with pytest.raises(DataError, match=r"sample '2' has no 'colour'.*1 others"):
        describe(SAMPLES, "a {colour} {label}", {"1": {"colour": "grey"}})
    with pytest.raises(ConfigError, match="template"):
        describe(SAMPLES, "a {label")
    with pytest.raises(ConfigError, match="template"):
        describe(SAMPLES, "a {label.colour}")


def test_tables_of_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    write_descriptions(path, {"1": 'a "wild", cat', "2": "a dog"})
    assert read_descriptions(path) == {"1": 'a "wild", cat', "2": "a dog"}
    path.write_text("id,colour,size\n1,grey,small\n")
    assert read_attributes(path) == {"1": {"colour": "grey", "size": "small"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,text\n", "id,text.*expected id,description"),
        ("", r"\(none\)"),
        ("id,description\n1,a\n,b\n", "line 3.*1 rows are fine"),
        ("id,description\n1,\n", "line 2"),
        ("id,description\n1,a\n1,b\n", "line 3: id '1' occurs twice"),
        ("id,description\n1,a,b\n", "line 2"),
        ("id,description\n1\n", "line 2"),
    ],
)
def test_wrong_tables_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_descriptions(path)
    path.write_bytes(b"id,description\n1,\xff\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_descriptions(path)
    with pytest.raises(DataError, match="no table"):
        read_descriptions(tmp_path / "other.csv")


@pytest.fixture(scope="session")
def captioning_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny captioning model with random weights, written as transformers writes models."""
    transformers: Any = pytest.importorskip("transformers")
    torch: Any = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("captioner")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "car", "red", "on", "mat"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    config = transformers.BlipConfig(
        text_config={
            **size,
            "encoder_hidden_size": 16,
            "vocab_size": len(words),
            "max_position_embeddings": 32,
            "bos_token_id": 2,
            "sep_token_id": 3,
            "eos_token_id": 3,
            "pad_token_id": 0,
        },
        vision_config={**size, "image_size": 32, "patch_size": 16},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    transformers.BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_captions_of_a_local_model(captioning_model: Path, rng: np.random.Generator) -> None:
    captioner = Captioner(captioning_model, max_tokens=5)
    images = [rng.integers(0, 256, shape, np.uint8) for shape in ((40, 60, 3), (33, 20, 3))]
    captions = captioner(images)
    assert len(captions) == 2
    assert all(isinstance(caption, str) and "[" not in caption for caption in captions)
    assert captioner(images) == captions
    assert captioner([]) == []
    with pytest.raises(InvalidInputError, match="RGB"):
        captioner([np.zeros((4, 4), np.uint8)])


def test_folder_without_captioning_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(DataError, match=r"config\.json"):
        Captioner(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DataError, match="cannot read the captioning model"):
        Captioner(tmp_path)
