"""The parts of `distill generate`: answers cleaned, passages sampled, repetitions found, queries checked."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import InputError
from distill.queries.answers import fault_of, longest_copy, num_words, plain, query_of, repeats
from distill.queries.distinct import Distinct
from distill.queries.generation import Plan, shares
from distill.queries.logged import read_logged
from distill.queries.prompt import BUNDLED, read_query_prompt, read_query_prompts
from distill.queries.round_trip import RoundTrip
from distill.queries.sampling import is_short, sample_passages
from distill.retrieval.bm25 import Bm25
from distill.retrieval.words import word_reader
from distill.sources.fields import USUAL
from examples.llm_server import written_query
from tests.helpers.configuration import compose_config

BEES = "Honey bees steer by the sun, and tell others the way in a dance. The angle of the dance is that of the flight."


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ("bee navigation", "bee navigation"),
        ("  bee\tnavigation \n", "bee navigation"),
        ('"bee navigation"', "bee navigation"),
        ("“bee navigation”", "bee navigation"),
        ("„Wie finden Bienen nach Hause?“", "Wie finden Bienen nach Hause?"),
        ("「蜜蜂 导航」", "蜜蜂 导航"),
        ('"honey bees" dance', '"honey bees" dance'),
        ('"honey bees" "waggle dance"', '"honey bees" "waggle dance"'),
        ('"bee navigation', "bee navigation"),
        ("Query: bee navigation", "bee navigation"),
        ("Search query: “bee navigation”", "bee navigation"),
        ("**Query:** bee navigation", "bee navigation"),
        ("Question: How do bees find home?", "How do bees find home?"),
        ("Frage: Wie finden Bienen heim?", "Wie finden Bienen heim?"),
        ("问题：蜜蜂如何导航？", "蜜蜂如何导航？"),
        ("Query:\nbee navigation", "bee navigation"),
        ("**Query 1:** bees steer\n**Query 2:** bees dance", "bees steer"),
        ('Search Query #1: "bees"', "bees"),
        ("Suchanfrage 1: Bienen", "Bienen"),
        ("查询1：蜜蜂导航", "蜜蜂导航"),
        ("Final query: bees", "bees"),
        ("Natural language query (long): bees", "bees"),
        ("Question 12 of the bee quiz: answers", "Question 12 of the bee quiz: answers"),
        ('{"query": "bees \\ud83c steer"}', "bees ? steer"),
        ('["bees \\ud83d\\udc1d steer"]', "bees 🐝 steer"),
        ("1. bee navigation\n2. bee dance", "bee navigation"),
        ("- bee navigation\n- bee dance", "bee navigation"),
        ("(1) bee navigation", "bee navigation"),
        ("**bee navigation**", "bee navigation"),
        ("`bee navigation`", "bee navigation"),
        ("```\nbee navigation\n```", "bee navigation"),
        ('{"query": "bee navigation"}', "bee navigation"),
        ('{"query": "bee navigation", "type": "keyword"}', "bee navigation"),
        ('```json\n{"query": "bee navigation"}\n```', "bee navigation"),
        ('["bee navigation"]', "bee navigation"),
        ('[{"question": "bee navigation"}, {"question": "bee dance"}]', "bee navigation"),
        ('{"type": "keyword", "words": 2}', ""),
        ("<query>bee navigation</query>", "bee navigation"),
        ("Here it is:\n<question>\nbee navigation\n</question>", "bee navigation"),
        ("2012", "2012"),
        ("what does max_new_tokens do", "what does max_new_tokens do"),
        ("set OMP_NUM_THREADS in torch", "set OMP_NUM_THREADS in torch"),
        ("python __init__ method", "python __init__ method"),
        ("a*b*c product rule", "a*b*c product rule"),
        ("*bee* _navigation_ **by __the sun__**", "bee navigation by the sun"),
        ("用**蜜蜂**导航", "用蜜蜂导航"),
        ("analysis of variance in r", "analysis of variance in r"),
        ("analysis of final exam scores", "analysis of final exam scores"),
        ("analysisWe need a query.assistantfinalbee navigation", "bee navigation"),
        ("Great Wall of China: length", "Great Wall of China: length"),
        ("great depression: causes and effects", "great depression: causes and effects"),
        ("可以吃的蘑菇：种类", "可以吃的蘑菇：种类"),
        ("Great! The query is: bee navigation", "bee navigation"),
        ("Sure, here are two:\nbee navigation\nbee dance", "bee navigation"),
        ("Sure! Here is a query:\n\nbee navigation", "bee navigation"),
        ('Here\'s a keyword query: "bee navigation"', "bee navigation"),
        ("Sure!\nbee navigation", "bee navigation"),
        ("Hier ist eine Frage: Wie finden Bienen heim?", "Wie finden Bienen heim?"),
        ("好的，以下是查询：\n蜜蜂 导航", "蜜蜂 导航"),
        ('"bee navigation" - this query asks how bees find home', "bee navigation"),
        ("bee navigation\n\nThis query is about bees.", "bee navigation"),
        ("<think>What would they ask? Bees:</think>bee navigation", "bee navigation"),
        ("<think>What would they ask?", ""),
        ("3D printing bees", "3D printing bees"),
        ("C# or C++: which is faster", "C# or C++: which is faster"),
        ("ok google not working", "ok google not working"),
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_a_query_is_found_in_an_answer(answer, query):
    assert query_of(answer) == query


@pytest.mark.parametrize(
    ("query", "passage", "fault"),
    [
        ("how do bees find home", BEES, None),
        ("", BEES, "empty"),
        ("?!…", BEES, "empty"),
        ("what does this passage say about bees", BEES, "mentions-passage"),
        ("what is the author's view of bees", BEES, "mentions-passage"),
        ("according to the text, how do bees steer", BEES, "mentions-passage"),
        ("how do I send the text", "Tap the arrow to send the text to all.", None),
        ("was sagt dieser Text über Bienen", "Bienen fliegen nach der Sonne.", "mentions-passage"),
        ("Welche Vögel nennt der Artikel", "Amseln und Stare singen.", "mentions-passage"),
        ("本文介绍了什么", "蜜蜂用太阳导航。", "mentions-passage"),
        ("这篇文章说了什么", "蜜蜂用太阳导航。", "mentions-passage"),
        ("中国文化与蜜蜂", "蜜蜂用太阳导航。", None),
        ("how do bees steer and why and where and when", BEES, "too-long"),  # 9 words of 8
        ("how do bees steer and why and when", BEES, None),
        ("how do bees steer", "Пчёлы летают по солнцу.", "other-script"),
        ("蜜蜂如何导航", BEES, "other-script"),
        ("gps and pollen", "GPS 干扰它们。" + "蜜蜂用太阳导航。" * 5, "other-script"),  # 3 of 42 letters are Latin
        ("gps 蜜蜂", "GPS 干扰它们。" + "蜜蜂用太阳导航。" * 5, None),  # a word of the passage
        ("ミツバチの航法", "蜜蜂は太陽で方角を知る。", None),  # katakana, hiragana and kanji are one script
        ("tell others the way in a dance THE", f"{BEES}", "copied"),  # 8 words, whatever their case and marks
        ("others the way in a dance", BEES, None),
    ],
)
def test_a_fault_of_a_query_is_named(query, passage, fault):
    assert fault_of(query, passage, max_query_words=8, max_copied=8) == fault


def test_a_copy_is_as_long_as_its_words():
    assert longest_copy("Dance the ANGLE, of the dance, again", BEES) == 6  # all but the last word
    assert longest_copy("the moon", BEES) == 1 and longest_copy("moons", BEES) == 0
    # A character is 0.75 tokens, and a word of English 4/3 tokens
    assert longest_copy("太阳导航吗", "蜜蜂用太阳导航。") == pytest.approx(4 * 0.75 * 3 / 4)
    assert num_words("bees and 太阳") == pytest.approx(2 + 2 * 0.75 * 3 / 4)


def test_a_query_that_repeats_an_example_is_found():
    example = "Who has a key to the north building at night?"
    assert repeats("who has a key to the north building?", example, 8) and repeats("North key", "north KEY!", 8)
    assert not repeats("Who has a key to the garage?", example, 8)  # 6 words


def test_queries_that_differ_in_case_width_or_marks_are_the_same():
    assert plain("  How do BEES\tfind home?! ") == plain("ｈow do bees find home") == "how do bees find home"
    assert plain("…") == "" and plain("C++") != plain("C") and plain("wont") != plain("won't")
    assert plain("हिन्दी") == "हिन्दी"


def test_near_texts_are_found_by_the_share_of_their_words():
    distinct = Distinct(word_reader("porter", "lucene"), 0.8)
    assert distinct.near("anything") is None
    distinct.add("a", "how do bees find home")  # how, do, bee, find, home
    assert distinct.near("How do the bees find their home?") == "a"  # the and their are stop words
    assert distinct.near("how do bees find home today") == "a"  # 5 of 6
    assert distinct.near("how do bees find home today again") is None  # 5 of 7
    assert distinct.near("how do bees find a flower") is None  # 4 of 6
    assert distinct.near("the") is None


@given(
    st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1), min_size=1, max_size=12),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_near_texts_are_those_that_comparing_all_of_them_finds(texts, similarity):
    distinct, kept = Distinct(str.split, similarity), list[set[str]]()
    for number, words in enumerate(texts):
        near = [one for one in kept if len(one & words) / len(one | words) >= similarity - 1e-9]
        found = distinct.near(" ".join(words))
        assert (found is None) == (not near)
        if not near:
            kept.append(words)
            distinct.add(str(number), " ".join(words))


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 1.0])
def test_the_first_near_text_is_found_however_rare_its_words_are(similarity):
    rng = random.Random(0)
    distinct, added = Distinct(str.split, similarity), list[frozenset[str]]()
    for number in range(400):
        words = {f"w{int(rng.paretovariate(0.7))}" for _ in range(rng.randint(1, 20))}  # as common as in a language
        if added and rng.random() < 0.5:  # a few words more or fewer than a text before
            copied = rng.choice(added)
            words = {word for word in copied if rng.random() < 0.9} | set(rng.sample(sorted(words), rng.randint(0, 1)))
        alike = (len(one & words) / len(one | words) if words else 0 for one in added)
        first = next((str(place) for place, share in enumerate(alike) if share >= similarity - 1e-9), None)
        assert distinct.near(" ".join(words)) == first
        added.append(frozenset(words))
        distinct.add(str(number), " ".join(words))


def different() -> Distinct:
    return Distinct(str.split, 0.8)


def rows(num_articles: int, num_passages: int = 3) -> list[tuple[str, str]]:
    places = itertools.product(range(num_articles), range(num_passages))
    return [(f"d{one}#{two}", " ".join(f"w{one}-{two}-{word}" for word in range(25))) for one, two in places]


def test_a_sample_has_one_passage_of_each_article_whatever_the_order():
    sampled = sample_passages(rows(40), 10, seed=1, min_words=20, distinct=different())
    assert len(sampled.texts) == 10 and sampled.num_passages == 120
    assert len({doc_id.split("#")[0] for doc_id in sampled.texts}) == 10
    assert sample_passages(reversed(rows(40)), 10, 1, 20, different()).texts == sampled.texts
    larger = sample_passages(rows(40), 30, 1, 20, different())
    assert [*larger.texts][:10] == [*sampled.texts]
    assert sample_passages(rows(40), 10, 2, 20, different()).texts != sampled.texts
    assert len(sample_passages(rows(40), 99, 1, 20, different()).texts) == 40
    numbers = Counter(doc_id[-1] for doc_id in sample_passages(rows(600), 600, 1, 20, different()).texts)
    assert all(150 < number < 250 for number in numbers.values())  # each of three is as likely


def test_short_and_similar_passages_are_left_out_and_named():
    similar = [(f"s{number}", f"{rows(1)[0][1]} {number}") for number in range(2)]  # 25 words of 27
    given = [("short", "only a few words"), *rows(3, 1), *similar]
    sampled = sample_passages(given, 10, 1, 20, different())
    assert sampled.too_short == ["short"] and len(sampled.near) == 2
    assert {*sampled.near, *sampled.texts} == {"d0#0", "d1#0", "d2#0", "s0", "s1"}
    assert is_short("蜜蜂用太阳导航" * 5, 20) and not is_short("蜜蜂用太阳导航" * 6, 20)  # 35 and 42 · 0.5625 words


def test_passages_are_asked_about_once_before_they_are_for_another_type():
    plan = Plan(compose_config("generate", "num_queries=4", "max_passages=9"), ["a", "b"], ["d0", "d1", "d2"])
    assert plan.next({}) == [("a", "d0"), ("b", "d1"), ("a", "d2"), ("b", "d0")]  # of a: 0, 2, 1; of b: 1, 0, 2
    assert plan.next({"a": 1, "b": 2}) == [("a", "d1")]
    assert plan.next({"a": 1, "b": 1}) == [("b", "d2")] and plan.next({}) == []
    few = Plan(compose_config("generate", "num_queries=3", "max_passages=3"), ["a", "b"], ["d0", "d1", "d2"])
    assert few.next({}) == [("a", "d0"), ("b", "d1"), ("a", "d2")] and few.rest() == []  # two of a and one of b
    assert shares(8, ["a", "b", "c"]) == {"a": 3, "b": 3, "c": 2}


def test_a_query_is_kept_if_its_passage_comes_back(tmp_path, monkeypatch):
    passages = tmp_path / "p.tsv"
    passages.write_text("d1\tbees bees sun\nd2\tbees moon moon\nd3\tbees tide tide tide\nd4\train\n")
    queries = {"q1": "bees", "q2": "bees", "q3": "moon", "q4": "snow", "q5": "tide rain"}
    origins = {"q1": "d1", "q2": "d3", "q3": "d2", "q4": "d4", "q5": "d3"}
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    # BM25 on "bees": d1 has it twice, d2 is as short with it once, d3 is longer
    top = {depth: RoundTrip(str(passages), USUAL, Bm25(), depth).faults(queries, origins) for depth in (1, 2, 3, None)}
    assert top[1] == {"q1": None, "q2": "not-retrieved", "q3": None, "q4": "not-retrieved", "q5": None}
    assert top[2] == top[1] and top[3] == top[1] | {"q2": None}
    assert top[None] == dict.fromkeys(queries)

    def backwards(name, device, run, queries, passages):
        assert (name, device) == ("model", "cpu") and all(
            doc in passages for one in run.values() for doc in one.doc_ids
        )
        asked.update(run)
        flipped = {q: type(one).in_order(one.doc_ids[::-1], one.scores[::-1]) for q, one in run.items()}
        return flipped, []

    asked = set[str]()
    monkeypatch.setattr("distill.teachers.ensemble.score_with", backwards)
    checks = RoundTrip(str(passages), USUAL, Bm25(), 3, "model", 2, "cpu")
    assert checks.faults(queries, origins) == top[3] | {"q1": "ranked-low"}  # d3, d2, d1
    assert asked == {"q1", "q2"}  # the others find two passages at most


def test_a_log_is_cleaned_and_typos_stay(tmp_path, caplog):
    log = tmp_path / "log.tsv"
    log.write_text("q1\tOpening hours\nq2\t\nq3\topening  hours!\nq4\topning hours\nq5\t??\nq6\tOpening hours\n")
    logged = read_logged(str(log))
    assert logged.queries == {"q1": "Opening hours", "q4": "opning hours"}
    assert logged.empty == ["q2", "q5"] and logged.repeated == {"q3": "q1", "q6": "q1"}
    assert "2 of 6 queries have no letter or digit: left out (first: q2)" in caplog.text
    assert "2 of 6 queries repeat an earlier one: left out (first: q3 repeats q1)" in caplog.text
    log.write_text("q1\topening hours\nq1\tclosing hours\n")
    with pytest.raises(InputError, match="log.tsv:2: id q1 appears twice"):
        read_logged(str(log))
    log.write_text("q1\t\nq1\tclosing hours\n")
    with pytest.raises(InputError, match="log.tsv:2: id q1 appears twice"):
        read_logged(str(log))
    log.write_text("q1\t \nq2\t...\n")
    with pytest.raises(InputError, match="log.tsv: holds no query with a text"):
        read_logged(str(log))
    log.write_text("opening hours\n")
    with pytest.raises(InputError, match="log.tsv:1: one column instead of two"):
        read_logged(str(log))


def test_a_prompt_shows_its_examples_before_the_passage():
    for kind, prompt in read_query_prompts([path.stem for path in BUNDLED.glob("*.yaml")]).items():
        system, *turns, last = prompt.fill("Bees {text} dance. " * 200)
        assert system["role"] == "system" and last["role"] == "user" and len(turns) == 6
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3
        assert last["content"].startswith("Passage: Bees {text} dance. Bees") and last["content"].count("Bees") == 100
        assert prompt.fill("Bees dance. " * 200, shorter=2)[-1]["content"].count("Bees") == 75
        for passage, query, _ in prompt.examples:
            assert fault_of(query, passage, prompt.max_query_words, 8) is None, (kind, query)
            assert query_of(query) == query


@pytest.mark.parametrize(
    ("passage", "languages"),
    [
        ("Bees find home by the sun, and they tell the others of it in a dance.", {"english"}),
        ("Die Bienen finden mit der Sonne nach Hause und tanzen auf der Wabe.", {"german"}),
        ("蜜蜂用太阳导航，也用舞蹈告诉同伴方向。", {"bigrams"}),
        ("Пчёлы находят дорогу домой по солнцу, и они танцуют.", {"english", "german", "bigrams"}),
        ("bee", {"english", "german", "bigrams"}),
    ],
)
def test_examples_are_in_the_language_of_the_passage(passage, languages):
    prompt = read_query_prompt("keyword")
    shown = [one["content"] for one in prompt.fill(passage) if one["role"] == "assistant"]
    expected = [one for one in prompt.examples if one.language in languages]
    assert shown == [one.query for one in (expected if len(languages) == 1 else expected[:3])]


def test_the_stand_in_writes_queries_that_pass_in_three_languages():
    for kind, prompt in read_query_prompts(["keyword", "question", "long"]).items():
        for passage, *_ in prompt.examples:
            query = query_of(written_query(prompt.fill(passage)[-1]["content"]))
            assert fault_of(query, passage, prompt.max_query_words, 8) is None, (kind, query)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("system: x", "expected exactly the keys system, passage, max_words, max_query_words"),
        ("{system: '', passage: 'no place', max_words: 9, max_query_words: 9}", "passage lacks {text}"),
        ("{system: '', passage: '{text}', max_words: 0, max_query_words: 9}", "max_words=0: must be a whole number"),
        ("{system: '', passage: '{text}', max_words: 9, max_query_words: true}", "max_query_words=True"),
        ("{system: '', passage: '{text}', max_words: 9, max_query_words: 9, examples: x}", "examples must be a list"),
        ("{system: '', passage: '{text}', max_words: 9, max_query_words: 9, examples: [{query: x}]}", "has the keys"),
        (
            "{system: '', passage: '{text}', max_words: 9, max_query_words: 9, examples: [{query: x, passage: ''}]}",
            "an example has an empty passage or query",
        ),
        ("[", "is not YAML"),
    ],
)
def test_a_bad_prompt_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="mine.yaml: .*" + message.replace("{", "\\{")):
        read_query_prompt(str(path))


def test_an_unknown_type_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="keywrd: no such file: .*queries/prompts/keyword.yaml, or one of keyword, lo"):
        read_query_prompts(["keywrd"])
    with pytest.raises(InputError, match="long appears twice"):
        read_query_prompts(["long", "long"])
