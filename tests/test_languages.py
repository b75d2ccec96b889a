"""A newcomer's corpus in Chinese, and one in German: from passages with several fields to the teacher's ranking."""

import json
import re
from importlib import metadata

import pytest

from benchmarks import languages as benchmark
from benchmarks.help_desk import articles, questions
from distill.commands.annotate import annotate
from distill.commands.retrieve import retrieve
from distill.errors import InputError
from distill.retrieval.bm25 import Bm25, bm25_run, in_own_language
from distill.retrieval.languages import choose_language, language_of, languages_of
from distill.retrieval.stop_words import all_stop_words, stop_words_of
from distill.retrieval.words import ENGLISH, lack_spaces, word_reader
from distill.sources.runs import read_run
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT

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


SENTENCES = {
    "english": "You can change the password of your account on this page, but it takes an hour.",
    "german": "Das Passwort für Ihr Konto können Sie auf dieser Seite ändern, aber es dauert eine Stunde.",
    "french": "Vous pouvez changer le mot de passe de votre compte sur cette page, mais cela prend une heure.",
    "spanish": "Puede cambiar la contraseña de su cuenta en esta página, pero los cambios tardan una hora.",
    "italian": "È possibile cambiare la password del proprio account in questa pagina, ma ci vuole un'ora.",
    "portuguese": "Você pode mudar a senha da sua conta nesta página, mas isso leva uma hora.",
    "dutch": "U kunt het wachtwoord van uw account op deze pagina wijzigen, maar het duurt een uur.",
    "swedish": "Du kan ändra lösenordet för ditt konto på den här sidan, men det tar en timme.",
    "danish": "Du kan ændre adgangskoden til din konto på denne side, men det tager en time, hvis noget går galt.",
    "norwegian": "Du kan endre passordet til kontoen på denne siden, men det tar en time hvis noe går galt etter det.",
    "finnish": "Voit vaihtaa tilin salasanan tällä sivulla, mutta se kestää tunnin, jos jokin menee vikaan.",
    "polish": "Na tej stronie można zmienić hasło do konta, ale może to potrwać godzinę.",
    "czech": "Na této stránce můžete změnit heslo k účtu, ale může to trvat hodinu.",
    "russian": "На этой странице вы можете изменить пароль, но это занимает час, если что не так.",
    "turkish": "Bu sayfada hesabınız için şifrenizi değiştirebilirsiniz, ama bir saat sürer.",
    "arabic": "يمكنك تغيير كلمة المرور في هذه الصفحة ولكن هذا يستغرق ساعة بعد ذلك",
    "hindi": "आप इस पृष्ठ पर अपने खाते का पासवर्ड बदल सकते हैं, लेकिन इस में एक घंटा लगता है",
    "bigrams": "您可以在此页面上更改帐户的密码，但这需要一个小时。",
}


def test_a_sentence_gives_its_language():
    assert {name: language_of(text) for name, text in SENTENCES.items()} == {name: name for name in SENTENCES}
    assert [language_of(text) for text in ("", "GPS iPhone 15", "12 34", "в")] == [None, None, None, None]
    assert languages_of(["der Bär und die Biene", "das Haus ist alt", "the bees of it", "x"]) == {
        "german": 0.5, "english": 0.25,
    }  # fmt: skip


def test_a_language_is_that_of_most_passages(caplog):
    assert choose_language("p.tsv", {"german": 0.5, "english": 0.09}) == "german" and not caplog.text
    assert choose_language("p.tsv", {"german": 0.5, "english": 0.3}) == "german"
    assert "p.tsv: is in several languages: german in 50%, english in 30%" in caplog.text
    for shares in ({}, {"german": 0.19}, {"german": 0.4, "english": 0.3, "french": 0.2}):
        assert choose_language("p.tsv", shares) is None


def test_stop_words_and_words_of_a_language():
    assert word_reader("german", "language")("Die Häuser und das Haus") == ["haus", "haus"]
    assert word_reader("porter", "language")("what are the bees") == ["bee"] and stop_words_of("english") >= ENGLISH
    assert word_reader("hindi", "none")("हिन्दी") != word_reader("hindi", "language")("हिन्दी")  # cut at signs, and not
    assert len(word_reader("hindi", "language")("हिन्दी किताब")) == 2
    with pytest.raises(InputError, match="there is no list for bm25.stemmer=none: set it to none"):
        word_reader("none", "language")
    for language, words in all_stop_words().items():
        assert all(word == word.lower() for word in words) and 20 <= len(words) <= 120, language


def auto(path, texts: list[str]) -> Bm25:
    path.write_text("".join(f"d{n}\t{text}\n" for n, text in enumerate(texts)), encoding="utf-8")
    return in_own_language(str(path), Bm25(stemmer="auto"))


def test_auto_reads_passages_in_their_language(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    for language, text in SENTENCES.items():
        way = auto(tmp_path / f"{language}.tsv", [text, text])
        expected = {"english": ("porter", "lucene"), "bigrams": ("bigrams", "none")}
        assert (way.stemmer, way.stop_words) == expected.get(language, (language, "language"))
    assert auto(tmp_path / "ko.tsv", ["벌은 어떻게 집을 찾나 그리고 어디"]) == Bm25(stemmer="none", stop_words="none")
    assert "ko.tsv: korean in 100% of the sampled passages: bm25.stemmer=none bm25.stop_words=none" in caplog.text
    assert auto(tmp_path / "x.tsv", ["GPS 15"]) == Bm25(stemmer="none", stop_words="none")
    assert "x.tsv: no known language: bm25.stemmer=none" in caplog.text
    monkeypatch.setattr("Stemmer.algorithms", lambda: ["german"])  # an older version
    assert auto(tmp_path / "pl.tsv", [SENTENCES["polish"]]) == Bm25(stemmer="none", stop_words="none")
    kept = in_own_language(str(tmp_path / "german.tsv"), Bm25(stemmer="auto", stop_words="none", k1=1.2))
    assert kept == Bm25(stemmer="german", stop_words="none", k1=1.2)


def test_auto_gives_the_run_of_the_language_and_one_index(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    write_corpus(tmp_path, "german")
    (tmp_path / "de.tsv").write_text("".join(f"{n}\t{text}\n" for n, text in enumerate(GERMAN.values())))
    (tmp_path / "en.tsv").write_text("a\tthe bees are dancing\nb\tto be a bee\n")
    queries = {f"q{n}": f"Wie finden die Bienen zur Sonne {n}" for n in range(10)}
    ways = [Bm25(stemmer="auto"), Bm25(stemmer="german", stop_words="language")]
    runs = [bm25_run(str(tmp_path / "de.tsv"), queries, 5, way) for way in ways]
    assert [run["q1"].doc_ids for run in runs] == [["0"], ["0"]]  # Bienen finds Biene
    assert runs[0]["q1"].scores.tolist() == runs[1]["q1"].scores.tolist()
    runs = [bm25_run(str(tmp_path / "en.tsv"), {"q": "bees"}, 5, way) for way in (Bm25(), Bm25(stemmer="auto"))]
    assert runs[0]["q"].scores.tolist() == runs[1]["q"].scores.tolist()
    assert len([path for path in (tmp_path / "cache" / "bm25").iterdir() if path.is_dir()]) == 2
    assert "set bm25.stemmer=auto" not in caplog.text
    bm25_run(str(tmp_path / "de.tsv"), queries, 5)
    assert "most queries are german, and bm25.stemmer=porter is for English: set bm25.stemmer=auto" in caplog.text


def test_the_help_desk_has_300_articles_and_ten_questions_with_an_answer_of_each_language():
    for language in ("english", "german", "chinese"):
        rows = articles(language)
        assert rows == articles(language) and len(rows) == 300
        assert all(len({row[name] for row in rows}) == 300 for name in ("sku", "title"))
        assert {*rows[0]} == {"sku", "title", "body", "category"}
        asked = questions(language)
        assert len(asked) == 10 and {doc_id for _, doc_id in asked.values()} <= {row["sku"] for row in rows}
    assert questions("german")["de-q3"] == ("Wie kündigt man Abonnements für Fernsehern?", "de-068")
    assert rows[150] == {"sku": "zh-150", "title": "路由器：更换电池", "body": rows[150]["body"], "category": "device"}


def test_ten_questions_find_their_articles_as_documented(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    measured_here = f"(PyStemmer {metadata.version('PyStemmer')}, " in page  # stems depend on the version
    for language in ("german", "chinese"):
        found, _ = benchmark.places(language, tmp_path)
        assert found["stemmer=auto"].count(1) >= 7 > found["default"].count(1)
        for way, name in {"default": "default", "stemmer=auto": "`stemmer=auto`"}.items():
            shown = " ".join(str(rank) if 0 < rank <= 10 else "–" for rank in found[way])
            assert f"| {language.capitalize()} | {name} | {shown} |" in page or not measured_here
