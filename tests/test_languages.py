"""A newcomer's corpus in Chinese, and one in German: from passages with several fields to the teacher's ranking."""

import json
import re

import pytest

from distill.commands.annotate import annotate
from distill.commands.retrieve import retrieve
from distill.retrieval.words import lack_spaces, word_reader
from distill.sources.runs import read_run
from tests.helpers.configuration import compose_config

CHINESE = {
    "蜜蜂": "蜜蜂靠太阳的位置和记住的地标找到回家的路。", "茶叶": "绿茶应当用八十度左右的热水冲泡",
    "高铁": "从北京到上海的高铁最快需要四个多小时。", "长城": "长城的修建持续了许多个朝代，全长超过两万公里。",
    "熊猫": "大熊猫每天要吃十几公斤竹子。", "感冒": "感冒通常由病毒引起，多休息、多喝水就会好转。",
    "手机": "手机电池在零度以下会很快没电，iPhone 15 也一样。", "火锅": "四川火锅的辣味来自花椒和辣椒。",
    "月亮": "月亮绕地球一周大约需要二十七天。", "围棋": "围棋的棋盘有三百六十一个交叉点。",
}  # fmt: skip
GERMAN = {
    "Bienen": "Eine Biene findet den Weg nach Hause über den Stand der Sonne.", "Tee": "Grüner Tee zieht drei Minuten.",
    "Züge": "Der schnellste Zug von Köln nach München braucht gut vier Stunden.", "Brot": "Sauerteigbrot geht langsam.",
    "Pandas": "Ein Großer Panda frisst am Tag viele Kilo Bambus.", "Schnupfen": "Viren lösen Erkältungen aus.",
    "Telefone": "Der Akku eines Telefons entlädt sich bei Frost schneller.", "Käse": "Käse reift in kühlen Kellern.",
    "Mond": "Der Mond umrundet die Erde in siebenundzwanzig Tagen.", "Schach": "Ein Schachbrett hat 64 Felder.",
}  # fmt: skip
QUESTIONS = {
    "chinese": {"z1": ("蜜蜂怎么找到回家的路？", "zh0"), "z2": ("茶叶：绿茶用多少度的水冲泡", "zh1"),
                "z3": ("手机：iPhone电池", "zh6")},
    "german": {"g1": ("Wie finden Bienen nach Hause?", "de0"), "g2": ("Züge nach München", "de2"),
               "g3": ("Telefone: welcher Akku hält bei Frost?", "de6")},
}  # fmt: skip
FILLER = {"chinese": "这是一段很长的补充说明没有任何空格", "german": "Dies ist eine lange Ergänzung ohne Bezug "}


def write_corpus(directory, language: str) -> None:
    """Write 20 passages with a title and a body, those with odd numbers long and off topic, and three queries."""
    topics, prefix = (CHINESE, "zh") if language == "chinese" else (GERMAN, "de")
    rows = [{"sku": f"{prefix}{n}", "title": title, "body": body} for n, (title, body) in enumerate(topics.items())]
    rows += [
        {"sku": f"{prefix}long{n}", "title": f"{title} {n}", "body": FILLER[language] * 80}
        for n, title in enumerate(topics)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (directory / "passages.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    questions = "".join(f"{query_id}\t{text}\n" for query_id, (text, _) in QUESTIONS[language].items())
    (directory / "queries.tsv").write_text(questions, encoding="utf-8")
    qrels = "".join(f"{query_id} 0 {doc_id} 1\n" for query_id, (_, doc_id) in QUESTIONS[language].items())
    (directory / "qrels.txt").write_text(qrels, encoding="utf-8")


@pytest.mark.parametrize(
    ("language", "options", "longest"),
    [
        ("chinese", ["bm25.stemmer=bigrams", "bm25.stop_words=none"], 540),  # characters: 300 words are 400 tokens
        ("german", ["bm25.stemmer=german", "bm25.stop_words=none"], 300 * 9),
    ],
)
def test_a_corpus_is_annotated_from_end_to_end(tmp_path, monkeypatch, serve, capsys, language, options, longest):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    write_corpus(tmp_path, language)
    texts = [f"passages={tmp_path}/passages.jsonl", f"queries={tmp_path}/queries.tsv"]
    fields = ["id_field=sku", "text_fields=[title,body]"]
    retrieve(compose_config("retrieve", *texts, *fields, *options, f"output={tmp_path}/first.run"))
    first = read_run(str(tmp_path / "first.run"))
    assert {query_id: ranked.doc_ids[0] for query_id, ranked in first.items()} == {
        query_id: doc_id for query_id, (_, doc_id) in QUESTIONS[language].items()
    }
    server = serve()
    llm = [f"teacher.llm.base_url={server.url}", "teacher.llm.model=judge", "journal=none"]
    llm += [f"qrels={tmp_path}/qrels.txt", f"run={tmp_path}/first.run"]
    (tmp_path / "out").mkdir()
    results = annotate(compose_config("annotate", *texts, *fields, *llm), tmp_path / "out")
    assert results["first_stage/nDCG@10"] == 1
    assert "against first stage" in capsys.readouterr().out
    ranked = read_run(str(tmp_path / "out" / "teacher.run"))
    shown = {}
    for message in server.asked:  # one a query: no list is longer than a window
        query_id = next(one for one, (text, _) in QUESTIONS[language].items() if text in message)
        shown[query_id] = re.findall(r"^\[\d+\] (.*)$", message, re.MULTILINE)
    assert set(shown) == set(ranked) == set(QUESTIONS[language])
    for query_id, passages in shown.items():
        assert len(passages) == len(first[query_id]) >= 2 and max(map(len, passages)) <= longest
        order = sorted(range(len(passages)), key=lambda place: passages[place][::-1])  # as the endpoint ranks
        assert ranked[query_id].doc_ids == [first[query_id].doc_ids[place] for place in order]
    assert max(len(passage) for passages in shown.values() for passage in passages) > longest / 2  # and not cut short


def test_pairs_of_characters_take_the_place_of_words_without_spaces(tmp_path, monkeypatch, caplog):
    words_of = word_reader("bigrams", "lucene")
    assert words_of("蜜蜂找路，用 GPS 和iPhone手机") == ["蜜蜂", "蜂找", "找路", "用", "gps", "和", "iphone", "手机"]
    assert words_of("ผึ้งบิน") == ["ผึ", "ึ้", "้ง", "งบ", "บิ", "ิน"] and words_of("The bees fly") == ["bees", "fly"]
    assert word_reader("porter", "lucene")("蜜蜂找路 bees") == ["蜜蜂找路", "bee"]
    assert lack_spaces(["蜜蜂怎么找路", "bees"]) is False and lack_spaces(["蜜蜂怎么找路"])
    assert not lack_spaces(["Wie findet die Biene nach Hause?", "벌은 어떻게 집을 찾나", "iPhone 手机"])
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    write_corpus(tmp_path, "chinese")
    (tmp_path / "queries.tsv").write_text("z1\t火锅 辣味来自花椒\n", encoding="utf-8")
    names = [f"passages={tmp_path}/passages.jsonl", f"queries={tmp_path}/queries.tsv", f"output={tmp_path}/r.run"]
    retrieve(compose_config("retrieve", *names, "id_field=sku", "text_fields=[title,body]"))
    assert "set bm25.stemmer=bigrams" in caplog.text
