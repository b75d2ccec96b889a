"""In other libraries' pipelines: PyTerrier's, which nothing else imports, and the rerankers of docs/models.md."""

import pytest
import torch

from distill.errors import InputError
from tests.helpers.backbones import WORDS
from tests.helpers.commands import run
from tests.helpers.models import make_model
from tests.helpers.paths import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in [*(ROOT / "distill").rglob("*.py"), *ROOT.glob("*.py")]
    if path.name != "pyterrier.py"
)


def test_everything_else_is_imported_without_it(tmp_path):
    code = f"import sys, importlib; sys.modules['pyterrier'] = None; [importlib.import_module(m) for m in {MODULES}]"
    (tmp_path / "script.py").write_text(code)
    run(tmp_path / "script.py", check=True)


@pytest.fixture(scope="module")
def pt():
    return pytest.importorskip("pyterrier", reason="python-terrier is not installed")


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "backbone", "bert")


def frame(pt):
    import pandas as pd

    rows = [
        (
            qid,
            " ".join(WORDS[place : place + 2]),
            f"{qid}-{number}",
            " ".join(WORDS[number : number + 5]),
            9.0 - number,
            number,
        )
        for place, qid in enumerate(("q2", "q1"))
        for number in range(6)
    ]
    return pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"])


def test_a_frame_is_reranked_as_the_model_ranks(pt, model, tmp_path):
    from distill.pyterrier import Reranker

    given = frame(pt)
    found = Reranker(model)(given)
    assert list(found.columns) == list(given.columns) and list(dict.fromkeys(found["qid"])) == ["q2", "q1"]
    for qid, group in found.groupby("qid"):
        before = given[given["qid"] == qid]
        order, scores = model.rank(before["query"].iloc[0], before["text"].tolist())
        assert group["docno"].tolist() == [before["docno"].iloc[place] for place in order]
        assert group["score"].tolist() == scores and group["rank"].tolist() == list(range(6))
    model.save_pretrained(tmp_path / "model")
    again = Reranker(str(tmp_path / "model"), device="cpu")(given)
    assert again["docno"].tolist() == found["docno"].tolist()


def test_a_cell_without_a_text_is_an_empty_text(pt, model):
    from distill.pyterrier import Reranker

    given = frame(pt)
    given.loc[given["docno"] == "q2-1", "text"] = None
    given.loc[given["docno"] == "q2-2", "text"] = float("nan")
    found = Reranker(model)(given).set_index("docno")["score"]
    (empty,) = model.rank(given["query"].iloc[0], [""])[1]
    assert found["q2-1"] == found["q2-2"] == pytest.approx(empty, abs=1e-6)


def test_it_takes_its_place_in_a_pipeline(pt, model):
    from distill.pyterrier import Reranker

    given = frame(pt)
    pipeline = (pt.Transformer.from_df(given) >> Reranker(model)) % 2
    found = pipeline(given[["qid", "query"]].drop_duplicates())
    assert found.groupby("qid").size().tolist() == [2, 2]
    renamed = given.rename(columns={"text": "body"})
    assert len(Reranker(model, text_field="body")(renamed)) == 12
    assert Reranker(model)(given[:0]).empty
    with pytest.raises(Exception, match="text"):
        Reranker(model)(renamed)


@pytest.mark.parametrize("qid", [None, float("nan")])
def test_a_row_without_a_qid_is_refused(pt, model, qid):
    from distill.pyterrier import Reranker

    given = frame(pt)
    given.loc[2, "qid"] = qid
    with pytest.raises(InputError, match=r"^qid: row 2 \(from 0\) has none: give each row the qid of its query$"):
        Reranker(model)(given)


def test_a_qid_with_two_queries_is_refused(pt, model):
    from distill.pyterrier import Reranker

    given = frame(pt)
    given.loc[2, "query"] = "bees\nhome"
    first = given["query"].iloc[0]
    with pytest.raises(InputError, match="^qid=q2: has two queries, ") as refused:
        Reranker(model)(given)
    assert f"{first!r} and 'bees\\nhome': give each a qid of its own" in str(refused.value)


def test_a_precision_is_named_as_in_the_commands(pt, model):
    from distill.pyterrier import Reranker

    given = frame(pt)
    by_name, by_dtype = (Reranker(model, precision=one) for one in ("bfloat16", torch.bfloat16))
    assert by_name(given)["score"].tolist() == by_dtype(given)["score"].tolist()
    assert Reranker(model, precision="float32")(given)["score"].tolist() == Reranker(model)(given)["score"].tolist()
    assert Reranker(model, precision="auto")(given)["score"].tolist() == Reranker(model)(given)["score"].tolist()
    with pytest.raises(InputError, match="^precision=half: must be one of auto, float32, bfloat16, float16$"):
        Reranker(model, precision="half")(given)


def test_a_device_beside_an_open_model_is_refused(pt, model):
    from distill.pyterrier import Reranker

    with pytest.raises(InputError, match=r"^device=cuda: this model is open already, on cpu: .*model\.to\('cuda'\)$"):
        Reranker(model, device="cuda")


def test_the_ranker_of_the_docs_works(model, tmp_path, monkeypatch):
    pytest.importorskip("rerankers", reason="rerankers is not installed")
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    code = page.split("<!-- rerankers -->\n```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    model.save_pretrained(tmp_path / "outputs/DATE/TIME/model")
    found: dict = {}
    exec(code, found)
    query, passages = WORDS[0], [" ".join(WORDS[:3]), " ".join(WORDS[2:9])]
    order, scores = model.rank(query, passages)
    results = found["ranker"].rank(query, passages, doc_ids=["a", "b"])
    assert [result.doc_id for result in results] == [["a", "b"][place] for place in order]
    assert [result.score for result in results] == pytest.approx(scores, abs=1e-5)
    assert found["ranker"].score(query, passages[order[0]]) == pytest.approx(scores[0], abs=1e-5)
    assert found["best"][0].rank == 1
