"""Text: vocabularies and splits of small corpora as listed by hand, streams that cover it, and refusals."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import Enwik8, PennTreebank, Text8, TextCorpus, TextDataModule, UserError
from datamodules.published_text import PublishedText
from datamodules.text import entropy

LINES = "the cat sat\nthe dog sat on the mat\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Any:
    """A TextCorpus of one file of this text."""

    def make(text: str | bytes, **options: Any) -> TextCorpus:
        path = tmp_path / "corpus.txt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return TextCorpus(str(path), **{"tbptt": 4, "batch_size": 2, "val_share": 0.2, "test_share": 0.2} | options)

    return make


def series(data: TextDataModule, split: Any) -> tuple[list[int], list[int]]:
    found = data.series(split)
    return found.inputs.tolist(), found.targets.tolist()


# ---- vocabularies


def test_characters_as_listed(corpus: Any) -> None:
    data = corpus("abba cd\n")  # 8 characters: 6 for training, 1 and 1
    assert data.vocabulary.symbols == ("\n", " ", "a", "b", "c", "d")
    assert [data.symbols(name).tolist() for name in ("train", "val", "test")] == [[2, 3, 3, 2, 1, 4], [5], [0]]
    assert series(data, "train") == ([2, 3, 3, 2, 1], [3, 3, 2, 1, 4])
    assert data.task.input_size == data.task.target_size == 6 and data.task.name == "text_char"
    assert data.task.metric == "bits_per_character" and not data.task.higher_is_better
    assert data.vocabulary.decode([2, 3, 0]) == "ab\n" and data.vocabulary.start == 0


def test_characters_beyond_ascii(corpus: Any) -> None:
    data = corpus("é€😀a" * 3)
    assert data.vocabulary.symbols == ("a", "é", "€", "😀")
    assert data.vocabulary.decode(data.vocabulary.encode("😀aé", "here").tolist()) == "😀aé"
    assert data.vocabulary.start == 0  # there is neither a line's end nor a space


def test_words_as_listed(corpus: Any) -> None:
    """the 3, sat 2, the others once in the alphabet's order, all of the training text; mat is only behind it."""
    data = corpus(LINES, level="word", val_share=0.1, test_share=0.1)  # 11 words with the ends of lines: 9, 1 and 1
    assert data.vocabulary.symbols == ("<unk>", "<eos>", "the", "sat", "cat", "dog", "on")
    assert data.symbols("train").tolist() == [2, 4, 3, 1, 2, 5, 3, 6, 2]
    assert data.symbols("val").tolist() == [0] and data.symbols("test").tolist() == [1]
    assert data.task.metric == "perplexity" and data.task.name == "text_word"
    assert data.vocabulary.encode("the zebra\ncat", "here").tolist() == [2, 0, 1, 4, 1]
    assert data.vocabulary.decode([2, 4, 1, 2, 0]) == "the cat\nthe <unk>"
    assert data.vocabulary.start == 1


def test_the_most_frequent_words_alone(corpus: Any) -> None:
    data = corpus(LINES, level="word", vocabulary_size=3, val_share=0, test_share=0)
    assert data.vocabulary.symbols == ("<unk>", "<eos>", "the")
    assert data.symbols("train").tolist() == [2, 0, 0, 1, 2, 0, 0, 0, 2, 0, 1]


def test_bytes_are_256(corpus: Any) -> None:
    data = corpus("aé\n".encode() * 4, level="byte", val_share=0.25, test_share=0.25)
    assert data.task.input_size == 256 and data.task.metric == "bits_per_byte"
    assert data.symbols("train").tolist() == [97, 0xC3, 0xA9, 10] * 2
    assert data.vocabulary.decode([97, 0xC3, 0xA9]) == "aé" and data.vocabulary.encode("é", "here").tolist() == [
        195,
        169,
    ]
    assert data.vocabulary.decode([0xC3]) == "�"


def test_any_bytes_are_bytes_and_no_text(corpus: Any) -> None:
    raw = bytes(range(256))
    assert corpus(raw, level="byte").symbols("train").tolist() == list(range(154))
    with pytest.raises(UserError, match=r"corpus.txt is no text in UTF-8: byte 129 cannot be read"):
        corpus(raw)


def test_metrics_have_their_units(corpus: Any) -> None:
    assert corpus(LINES, level="word", metric="bits_per_word").task.metric == "bits_per_word"
    assert corpus(LINES, metric="accuracy").task.higher_is_better
    with pytest.raises(UserError, match="metric is 'perplexity', but it must be null or one of bits_per_character"):
        corpus(LINES, metric="perplexity")


# ---- chance


@pytest.mark.parametrize("level", ["char", "byte", "word"])
def test_chance_is_the_entropy_of_the_training_text(corpus: Any, level: str) -> None:
    data = corpus(LINES * 3, level=level)
    counts = Counter(data.symbols("train").tolist())
    total = sum(counts.values())
    by_hand = math.fsum(count / total * math.log(total / count) for count in counts.values())
    assert data.task.chance == pytest.approx(by_hand, rel=1e-12)


def test_entropy_of_a_fair_coin_is_one_bit() -> None:
    assert entropy(torch.tensor([0, 1, 1, 0])) / math.log(2) == pytest.approx(1)


# ---- splits, documents, streams


def test_what_a_file_is_for_tells_data_apart(tmp_path: Path) -> None:
    """One moved from training to validation has been trained on."""
    names = [str(tmp_path / name) for name in "abcd"]
    for number, name in enumerate(names):
        Path(name).write_text("ab" * (number + 3))
    one = TextCorpus(names[:2], val_files=names[2], test_files=names[3])
    other = TextCorpus(names[0], val_files=names[1:3], test_files=names[3])
    assert one.definition() != other.definition() and one.contents == other.contents
    assert one.fingerprint() != other.fingerprint()
    assert TextCorpus(Path(names[0]), val_files=[Path(names[1])]).files == names[:1]  # type: ignore[arg-type,list-item]
    moved = [str(shutil.copy(name, f"{name}.txt")) for name in names]
    assert TextCorpus(moved[:2], val_files=moved[2], test_files=moved[3]).fingerprint() == one.fingerprint()


def test_files_are_documents(tmp_path: Path) -> None:
    for name, text in (("a", "aaa"), ("b", "bb"), ("c", "abab")):
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in "abc"]
    with pytest.warns(
        UserWarning, match=r"^data\.init_args\.test_share is 0\.9, which has no effect with test_files\."
    ):
        data = TextCorpus(files[:2], val_files=files[2], test_files=files[1:], test_share=0.9, tbptt=2, batch_size=1)
    assert data.symbols("train").tolist() == [0, 0, 0, 1, 1] and data.symbols("val").tolist() == [0, 1, 0, 1]
    begins = data.series("train").begins
    assert begins is not None and begins.tolist() == [True, False, False, True]
    assert data.series("val").begins is None
    resets = torch.cat([batch.reset for batch in data.loader("train")], 1)  # type: ignore[union-attr]
    assert resets.tolist() == [[True, False, False, True]]


@pytest.mark.parametrize("world", [1, 3])
def test_streams_of_all_ranks_cover_the_text_and_share_nothing(tmp_path: Path, world: int) -> None:
    """Of training but for fewer symbols than streams; in evaluation every next symbol is asked for once."""
    (tmp_path / "text").write_bytes(bytes(range(256)))  # every symbol says where it stands
    data = TextCorpus(str(tmp_path / "text"), "byte", val_share=0.3, tbptt=7, batch_size=2)
    for split in ("train", "val"):
        symbols = data.symbols(split).tolist()
        loaders = [data.loader(split, rank, world) for rank in range(world)]  # type: ignore[arg-type]
        seen = [
            torch.cat([b.targets.flatten() if b.mask is None else b.targets[b.mask] for b in loader])  # type: ignore[union-attr]
            for loader in loaders
        ]
        counted = torch.cat(seen).tolist()
        assert len(set(counted)) == len(counted)
        missing = set(symbols[1:]) - set(counted)
        assert len(missing) < (2 * world if split == "train" else 1)


def test_batches_are_symbols(corpus: Any) -> None:
    data = corpus(LINES * 5)
    batch = next(iter(data.loader("train")))
    assert batch.inputs.dtype == torch.int64 and data._parts["train"].dtype == torch.uint8


# ---- the text of Python


def test_without_files_the_text_is_pythons() -> None:
    from pydoc_data.topics import topics

    data = TextCorpus()
    whole = torch.cat([data.symbols(name) for name in ("train", "val", "test")])  # type: ignore[arg-type]
    assert data.vocabulary.decode(whole.tolist()) == "\n\n".join(topics[name] for name in sorted(topics))
    assert len(whole) > 400_000 and len(data.symbols("val")) == int(0.05 * len(whole))
    told = data.told()
    assert "Python" in told and "pydoc_data.topics" in told and f"{len(data.symbols('train')):,} for training" in told
    assert 2 < data.task.chance / math.log(2) < 5


# ---- what a run may go on with


def test_another_text_is_another_text(corpus: Any) -> None:
    one, other = corpus("abcd" * 4).definition(), corpus("abdc" * 4).definition()
    assert one["contents"] != other["contents"]
    assert {key: one[key] for key in one if key != "contents"} == {key: other[key] for key in one if key != "contents"}


# ---- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": "letter"}, r"data.init_args.level is 'letter', but it must be one of char, byte, word"),
        ({"val_share": 1.0}, r"data.init_args.val_share is 1.0"),
        ({"val_share": 0.5, "test_share": 0.5}, r"data.init_args.test_share is 0.5, but it must be less"),
        ({"vocabulary_size": 2, "level": "word"}, r"vocabulary_size is 2"),
        ({"vocabulary_size": 9}, r"vocabulary_size is 9, but it must be null or .* at level word alone"),
        ({"tbptt": 0}, r"data.init_args.tbptt is 0"),
    ],
)
def test_options_out_of_range(corpus: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        corpus(LINES, **options)


def test_texts_that_are_none(corpus: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text file .*corpus.txt is empty"):
        corpus("")
    with pytest.raises(UserError, match=r"at least two different characters"):
        corpus("aaaa")
    with pytest.raises(UserError, match=r"nothing.txt cannot be read \(No such file or directory\)"):
        TextCorpus(str(tmp_path / "nothing.txt"))
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        TextCorpus([str(tmp_path)])
    with pytest.raises(UserError, match=r"data.init_args.files is \[\], but it must be null, a path"):
        TextCorpus([])
    with pytest.raises(UserError, match=r"The validation text of TextCorpus has 0 characters"):
        corpus("abcdefgh", val_share=0).split("val")
    with pytest.raises(UserError, match=r"batch_size makes 50 streams"):
        corpus(LINES, batch_size=50).split("train")


def test_a_prompt_of_other_symbols(corpus: Any) -> None:
    with pytest.raises(UserError, match=r"^--prompt has '7', its character number 5, which is none of the 13"):
        corpus(LINES).vocabulary.encode("the 7", "--prompt")
    assert corpus(LINES).vocabulary.encode("", "--prompt").tolist() == []


# ---- published text


PENN = {
    "ptb.char.train.txt": " t h e _ c a t \n < u n k > _ N \n",
    "ptb.char.valid.txt": " a _ c a t \n",
    "ptb.char.test.txt": " h a t \n",
    "ptb.train.txt": " the cat <unk> N \n the end \n",
    "ptb.valid.txt": " the end \n",
    "ptb.test.txt": " a cat \n",
}


@pytest.fixture
def penn(tmp_path: Path) -> Path:
    (tmp_path / "PennTreebank").mkdir()
    for name, text in PENN.items():
        (tmp_path / "PennTreebank" / name).write_text(text)
    return tmp_path


def test_penn_characters(penn: Path) -> None:
    data = PennTreebank(str(penn), verify=False)
    data.prepare_data()
    assert data.task.name == "penn_treebank_char" and data.task.input_size == 50
    assert data.vocabulary.symbols == ("<eos>", "t", "_", "a", "c", "e", "h", "n", "<", ">", "N", "k", "u")[:1] + tuple(
        sorted(set("the_cat<unk>_N"), key=lambda c: (-"the_cat<unk>_N".count(c), c))
    )
    assert data.vocabulary.decode(data.symbols("val").tolist()) == "a cat\n"
    assert data.vocabulary.decode(data.vocabulary.encode("the cat", "here").tolist()) == "the cat"
    assert data.vocabulary.start == 0


def test_penn_words(penn: Path) -> None:
    data = PennTreebank(str(penn), level="word", verify=False, metric="bits_per_word")
    assert data.task.name == "penn_treebank_word" and data.task.input_size == 10_000
    assert data.vocabulary.symbols == ("<unk>", "<eos>", "the", "N", "cat", "end")
    assert data.symbols("test").tolist() == [0, 4, 1] and data.symbols("train").tolist() == [2, 4, 0, 3, 1, 2, 5, 1]


def test_a_penn_treebank_that_is_not_mikolovs(penn: Path) -> None:
    with pytest.raises(UserError, match=r"ptb.char.train.txt has 13 different chars with <eos>, but .* has 50"):
        PennTreebank(str(penn)).series("train")
    folder = penn / "PennTreebank"
    (folder / "ptb.train.txt").write_text("\n".join(f"word{k}" for k in range(9_998)))
    with pytest.raises(UserError, match=r"ptb.train.txt has 19,996 words, but Mikolov's has 929,589: it is cut short"):
        PennTreebank(str(penn), level="word").series("train")
    (folder / "ptb.train.txt").write_text("\n".join(f"word{k}" for k in range(9_999)))
    with pytest.raises(UserError, match=r"has 10,001 different words"):
        PennTreebank(str(penn), level="word", verify=False).series("train")


def test_the_sizes_are_those_of_the_papers() -> None:
    assert [PennTreebank(level=level).task.input_size for level in ("char", "word")] == [50, 10_000]  # type: ignore[arg-type]
    assert (Text8().task.input_size, Text8().task.metric) == (27, "bits_per_character")
    assert (Enwik8().task.input_size, Enwik8().task.metric) == (205, "bits_per_byte")
    assert Text8().task.chance == pytest.approx(math.log(27))


@pytest.mark.parametrize(("kind", "text"), [(Text8, "a zebra  " * 20), (Enwik8, "<page>é</page>\n" * 20)])
def test_ninety_five_and_five(tmp_path: Path, kind: type[Any], text: str) -> None:
    folder = tmp_path / kind.folder_name
    folder.mkdir()
    (folder / kind.folder_name).write_text(text)
    data = kind(str(tmp_path), verify=False)
    parts = [data.symbols(name) for name in ("train", "val", "test")]
    total = len(text.encode())
    assert [len(part) for part in parts] == [total - 2 * (total // 20), total // 20, total // 20]
    assert data.vocabulary.decode(torch.cat(parts).tolist()) == text
    with pytest.raises(UserError, match=rf"{kind.folder_name} is not the published file: its (MD5|SHA-1) is"):
        kind(str(tmp_path)).series("train")


def test_text8_of_other_characters(tmp_path: Path) -> None:
    (tmp_path / "text8").mkdir()
    (tmp_path / "text8" / "text8").write_text("a Zebra")
    with pytest.raises(UserError, match=r"text8/text8 has 'Z', its character number 3, which is none of the 27"):
        Text8(str(tmp_path), verify=False).series("train")


@pytest.mark.parametrize("kind", [PennTreebank, Text8, Enwik8])
def test_no_network_is_one_sentence(kind: type[PublishedText], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request
    from urllib.error import URLError

    def refuse(request: Any, **_: Any) -> None:
        assert request.full_url == kind.downloads[0].address
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(UserError) as refusal:
        kind(str(tmp_path)).prepare_data()
    sentence = str(refusal.value)
    assert sentence.startswith(f"{kind.folder_name} is not in {tmp_path / kind.folder_name}")
    assert kind.downloads[0].address in sentence and "Name or service not known" in sentence and "\n" not in sentence
