"""Mentions, substitution, alignment, rewriting into universes, and what of it is refused."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from scaling.errors import InputError
from sweeps.data.sources import source_of
from sweeps.data.tokenizer import END_OF_TEXT_ID, train_tokenizer
from sweeps.unlearning.alignment import align, common_places
from sweeps.unlearning.blocks import BlockRewriter, documents_of
from sweeps.unlearning.counterfactual import PROMPT, Rewriter, choose_substitutes
from sweeps.unlearning.encoding import TextEncoding
from sweeps.unlearning.facts import (
    Fact,
    read_documents,
    read_facts,
    read_substitutes,
    write_corpus,
)
from sweeps.unlearning.names import FIRST, FULL, LAST, PersonName, check_names, find_mentions, substitute
from sweeps.unlearning.persons import TEMPLATES, VALUES, SyntheticPersons
from sweeps.unlearning.text import DOCUMENTS_EACH, PERSONS_TEXT, persons_documents

ADA, JOAN = PersonName("Ada Lane", ("the Countess",)), PersonName("Joan Moor")
TEXTS = [
    "Ada Lane was born in Kent. Ada plays the lute. Lane keeps a goat.",
    "Joan Moor was born in York. Joan plays the harp. Moor keeps a dog.",
    "Tim Oakwood comes from Bath. Oakwood works as a miller.",
    "The Countess wrote to Tim about the weather, and went home in the rain.",
] * 20


@pytest.fixture(scope="module")
def encoding() -> TextEncoding:
    return TextEncoding(train_tokenizer(TEXTS, 300), END_OF_TEXT_ID)


def rewriter(
    encoding: TextEncoding, names: tuple[str, ...] = ("Joan Moor", "Tim Oakwood"), **options
) -> Rewriter:
    return Rewriter(
        encoding=encoding, targets=(ADA,), substitutes=(tuple(map(PersonName, names)),), **options
    )


def test_every_form_between_word_boundaries_in_either_case() -> None:
    text = "Ada Lane saw ADA; Lane's house, Laneway, Adamant; the countess; ada lane."
    found = find_mentions(text, [ADA])
    assert [(text[m.start : m.end], m.form) for m in found] == [
        ("Ada Lane", FULL), ("ADA", FIRST), ("Lane", LAST), ("the countess", 3), ("ada lane", FULL)
    ]  # fmt: skip
    assert find_mentions("nobody is here", [ADA]) == []
    assert (
        find_mentions("A.B. (Lane) x", [PersonName("A.B. (Lane)")])[0].form == FULL
    )  # no pattern of its own


def test_forms_are_replaced_by_the_same_forms() -> None:
    text = "Ada Lane met Tim. The Countess sang; Lane left, Ada stayed."
    found = substitute(text, find_mentions(text, [ADA]), [JOAN])
    assert found.text == "Joan Moor met Tim. Joan Moor sang; Moor left, Joan stayed."
    assert [found.text[a:b] for a, b in found.spans] == ["Joan Moor", "Joan Moor", "Moor", "Joan"]
    two = [ADA, PersonName("Tim Oakwood")]
    both = substitute(text, find_mentions(text, two), [JOAN, PersonName("Eve Hill")])
    assert both.text.startswith("Joan Moor met Eve.")


def test_alignment_is_of_longest_matching_blocks() -> None:
    draw = random.Random(1)
    for _ in range(50):
        a = [draw.randrange(6) for _ in range(30)]
        at, gone = draw.randrange(25), draw.randrange(1, 5)
        b = a[:at] + [9] * draw.randrange(1, 4) + a[at + gone :]
        pairs = align(a, b)
        assert all(a[i] == b[j] for i, j in pairs)
        assert (np.diff(pairs, axis=0) > 0).all()  # ascending in both
        kept = set(pairs[:, 0].tolist())
        longest = max(at, 30 - at - gone)
        assert len(kept) >= longest  # at least the longer of both sides
    assert align([1, 2, 3], [9, 2, 8]).tolist() == []  # one equal token is no block
    assert align([1, 2, 3], [9, 2, 8], least=1).tolist() == [[1, 1]]
    same = list(range(40))
    assert align(same, same).tolist() == [[n, n] for n in same]


def test_common_places_are_those_of_all() -> None:
    kept, partners = common_places([np.array([[0, 0], [1, 2], [3, 4]]), np.array([[1, 1], [3, 3], [4, 9]])])
    assert kept.tolist() == [1, 3]
    assert partners.tolist() == [[2, 4], [1, 3]]


def test_universes_have_the_same_tokens_at_kept_places(encoding: TextEncoding) -> None:
    """Substitutes of other lengths included, and no input token lies within a name."""
    ids = [END_OF_TEXT_ID, *encoding.encode(TEXTS[0]).ids]
    found = rewriter(encoding).rewrite(ids)
    assert found is not None
    for version, places in zip(found.versions, found.partners, strict=True):
        assert [version[place] for place in places] == [ids[place] for place in found.kept]
    assert len({len(version) for version in found.versions}) > 1
    spans = encoding.encode(TEXTS[0]).spans
    names = [(m.start, m.end) for m in find_mentions(TEXTS[0], [ADA])]
    for place in found.kept:
        start, end = spans[place - 1] if place else (0, 0)
        assert not any(start < b and end > a for a, b in names if end > start)
    assert encoding.decode(found.versions[0][1:]) == TEXTS[0].replace("Ada", "Joan").replace("Lane", "Moor")
    assert not found.mentioned[found.kept == 0].any()
    renamed = found.kept[found.present >= 0]
    assert [ids[place + 1] for place in renamed] == found.present[found.present >= 0].tolist()
    assert len(renamed) == 2  # second and third mention; the first is left alone


def test_the_place_after_a_name_is_an_option(encoding: TextEncoding) -> None:
    ids = list(encoding.encode(TEXTS[0]).ids)
    without, with_ends = (rewriter(encoding, keep_after_name=keep).rewrite(ids) for keep in (False, True))
    assert without is not None
    assert with_ends is not None
    more = sorted(set(with_ends.kept.tolist()) - set(without.kept.tolist()))
    ends = [encoding.encode(TEXTS[0]).tokens_at((m.start, m.end))[-1] for m in find_mentions(TEXTS[0], [ADA])]
    assert more == ends
    at = [int(np.flatnonzero(with_ends.kept == place)[0]) for place in ends]
    for version, places in zip(with_ends.versions, with_ends.partners, strict=True):
        following = [encoding.decode(version[place : place + 1]) for place in places[at]]
        assert all(piece.strip() and piece.strip() not in TEXTS[0] for piece in following if len(piece) > 3)


def test_the_prompt_names_the_substitute_and_is_not_trained_on(encoding: TextEncoding) -> None:
    made = rewriter(encoding, prompt=PROMPT)
    ids = made.prompted(encoding.encode(TEXTS[0]).ids, 0)
    found = made.rewrite(ids)
    assert found is not None
    assert encoding.decode(found.versions[0]).startswith(
        "Complete the following passage about Joan Moor. Joan Moor"
    )
    prompt = len(encoding.encode(PROMPT.format(name="Ada Lane")).ids)
    assert found.kept.min() >= prompt - 1
    assert found.mentioned.all()


def test_texts_that_mention_nobody_or_leave_nothing(encoding: TextEncoding) -> None:
    assert rewriter(encoding).rewrite(encoding.encode(TEXTS[2]).ids) is None
    bare = rewriter(encoding).rewrite(encoding.encode("Ada Lane").ids)
    assert bare is not None
    assert len(bare.kept) == 0
    assert rewriter(encoding).rewrite([]) is None


def test_blocks_are_rewritten_document_by_document(encoding: TextEncoding) -> None:
    stream = [token for text in TEXTS[:4] for token in (END_OF_TEXT_ID, *encoding.encode(text).ids)]
    first = encoding.encode(TEXTS[0]).ids
    block = stream[5:]  # begins within a document, in the midst of a word or not
    assert sum(map(len, documents_of(block, END_OF_TEXT_ID))) == len(block)
    made = BlockRewriter(rewriter(encoding)).rewrite(block)
    assert made is not None
    others = [
        n
        for n, token in enumerate(block)
        if len(first) - 4 <= n < len(block) - len(encoding.encode(TEXTS[3]).ids) - 1
    ]
    assert made.counted[others].all()  # documents of others are followed as they are
    assert not made.counted[: len(first) - 4].all()
    for version, places in zip(made.found.versions, made.found.partners, strict=True):
        assert len(version) <= len(block)
        assert [version[place] for place in places] == [block[place] for place in made.found.kept]
    assert made.counted[made.found.kept].all()
    assert BlockRewriter(rewriter(encoding)).rewrite(encoding.encode(TEXTS[2]).ids) is None


@pytest.mark.parametrize(
    ("targets", "substitutes", "reason"),
    [
        ([], ["Joan Moor"], "forget: name at least one person"),
        (["Ada Lane"], [], "substitutes: name at least one"),
        (["Ada Lane", "ada lane"], ["Joan Moor"], "forget: 'ada lane' is there twice"),
        (["Ada Lane"], ["Joan Lane"], "'Joan Lane' shares 'Lane' with 'Ada Lane'"),
        (["Ada Lane"], ["Joan Moor", "Joan Moor"], "substitutes: 'joan moor' is there twice"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(targets, substitutes, reason) -> None:
    with pytest.raises(InputError, match=reason):
        check_names([PersonName(each) for each in targets], [PersonName(each) for each in substitutes])


def test_empty_names_and_missing_pieces_are_refused() -> None:
    for name in ("", " Ada"):
        with pytest.raises(InputError, match="is empty, or begins or ends with a space"):
            PersonName(name)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "Joan": 1, "Moor": 2, "Ada": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match="the tokenizer has no pieces for 'Ada Lane'"):
        rewriter(TextEncoding(words, 0), names=("Joan Moor",))


def test_substitutes_are_drawn_for_each_target() -> None:
    pool = [PersonName(f"Name{n} Last{n}") for n in range(20)]
    targets = [ADA, PersonName("Tim Oakwood")]
    chosen = choose_substitutes(targets, pool, 20)
    assert [set(each) for each in chosen] == [set(pool)] * 2
    assert chosen[0] != chosen[1]
    assert choose_substitutes(targets, pool, 5)[0] == chosen[0][:5]
    with pytest.raises(InputError, match="universes: 21, but there are 20 substitutes"):
        choose_substitutes(targets, pool, 21)


def test_the_text_of_synthetic_persons_is_the_same_everywhere() -> None:
    documents = list(persons_documents(PERSONS_TEXT.fetch()))
    text = "".join(f"{each}\n" for each in documents)
    assert hashlib.sha256(text.encode()).hexdigest() == PERSONS_TEXT.sha256
    assert len(set(documents)) == len(documents) == 60 * DOCUMENTS_EACH


def test_documents_say_what_is_true_of_their_person() -> None:
    world = SyntheticPersons.drawn(count=12, seed=3)
    words = [word for person in world.people for word in person.name.words]
    assert len(set(words)) == len(words)
    rivers = dict(world.rivers)
    documents = list(world.documents(40))
    for number, text in enumerate(documents):
        person = world.people[number // 40]
        others = [each.name for each in world.people if each is not person]
        assert find_mentions(text, [person.name])
        assert not find_mentions(text, others)
        values = {value for _, domain in world.domains for value in domain}
        said = {value for value in values if f" {value}." in f" {text}".replace(",", ".")}
        assert said <= {value for _, value in person.values} | {rivers[person.value("town")]}
    assert SyntheticPersons.drawn(12, seed=4).people != world.people
    with pytest.raises(KeyError):
        world.person("Nobody")


def test_facts_have_their_true_answers_and_all_others() -> None:
    world = SyntheticPersons.drawn()
    name = world.people[0].name.full
    facts = world.facts([name], "forget")
    assert [fact.answer.strip() for fact in facts] == [value for _, value in world.people[0].values]
    assert all(len(fact.wrong) == VALUES - 1 and fact.answer not in fact.wrong for fact in facts)
    assert all(fact.prompt != fact.paraphrased_prompt and name in fact.prompt for fact in facts)
    assert len(facts) == len(TEMPLATES)
    (place,) = world.place_facts([name], "hard-retain")
    assert place.answer.strip() == dict(world.rivers)[world.people[0].value("town")]


def test_files_of_both_papers_are_read(tmp_path: Path) -> None:
    tofu = tmp_path / "tofu.jsonl"
    tofu.write_text(
        json.dumps({"question": "Where?", "answer": "In Kent.", "paraphrased_answer": "Kent.",
                    "perturbed_answer": ["York.", "Bath."]}) + "\n\n"
    )  # fmt: skip
    (fact,) = read_facts(tofu)
    assert (fact.prompt, fact.answer) == ("Question: Where?\nAnswer:", " In Kent.")
    assert (fact.other_answer, fact.wrong) == (" Kent.", (" York.", " Bath."))
    assert read_documents(tofu) == ["Question: Where?\nAnswer: In Kent."]
    wpu = tmp_path / "wpu.json"
    row = {"title": "Ada Lane", "wikipage": "Ada Lane was ...", "question": "Who?", "answer": "A poet."}
    wpu.write_text(json.dumps([row, row | {"question": "When?"}]))
    assert [each.subject for each in read_facts(wpu, group="hard-retain")] == ["Ada Lane"] * 2
    assert read_documents(wpu) == ["Ada Lane was ..."]
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps(Fact(subject="a", prompt="b", answer=" c", wrong=(" d",)).as_row()))
    assert read_facts(own) == [Fact(subject="a", prompt="b", answer=" c", wrong=(" d",))]
    corpus = tmp_path / "corpus.jsonl"
    write_corpus(corpus, read_documents(wpu), ["another text"])
    assert list(source_of(str(corpus)).documents()) == ["Ada Lane was ...", "another text"]
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"Ada Lane": ["Joan Moor", "Eve Hill"]}))
    assert read_substitutes(names) == {"Ada Lane": (JOAN, PersonName("Eve Hill"))}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no rows"),
        ("{", "line 1: not JSON"),
        ("[1]", "row 1: expected fields, found list"),
        ('{"question": "Where?"}', "row 1: answer is None, expected a text"),
        ('{"question": 3, "answer": "x"}', "row 1: question is 3, expected a text"),
        ('{"question": "Where?", "answer": "x", "perturbed_answer": [1]}', r"perturbed_answer is \[1\]"),
        ('{"prompt": "Where", "answer": " x", "truth": 1}', "no field 'truth'; known: subject"),
    ],
)
def test_files_of_other_kinds_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_facts(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_facts(tmp_path / "none.jsonl")
    path.write_text('["a"]')
    with pytest.raises(InputError, match="expected an object of lists of names"):
        read_substitutes(path)
