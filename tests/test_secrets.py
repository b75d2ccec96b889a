"""Secrets are taken out of every text that is written or printed."""

import logging
import time

import pytest

from distill.commands import annotate
from distill.config.saved import saved_text
from distill.errors import InputError
from distill.secrets import RedactedFormatter, Secrets, for_others, is_secret_name, redacted, without_password
from distill.teachers.endpoint_key import check_key_variable, check_receiver, read_key
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.paths import ROOT

KEPT = (
    "loss=ranknet, data.depth=50",
    "https://huggingface.co/datasets/OWNER/NAME/resolve/main/run.tsv#file=a.tsv",
    "teacher.llm.max_tokens=256",
    "token=512000",
    "{max_tokens:1024000}",
    "{api_key_variable:OPENAI_API_KEY}",
    "hf://datasets/OWNER/NAME/FILE",
    "mail me@example.org about q1",
    "/runs/lr=1e-3,seed=0: no checkpoints/last.pt there: give the output directory of a training",
    "teacher.llm.api_key_variable=OPENAI_API_KEY",
    "data/sk-wikipedia-passages.tsv",
    "/home/me/sk-learn-experiments-2026/q.tsv",
    "models/sk-cross-encoder-base-v2",
    "data/xai-explanations-of-cross-encoders-2026.tsv",
    "glpat-passages.tsv",
    "Basic comparison of Bearer authentication",
)
TAKEN_OUT = {
    "https://me:hunter2@host/v1": "https://***@host/v1",
    "error: http://hunter2hunter2@host:80/v1: refused": "error: http://***@host:80/v1: refused",
    "https://host/f?a=1&token=hunter2hunter2&b=2": "https://host/f?a=1&token=***&b=2",
    "https://host/f?X-Amz-Signature=0123456789abcdef": "https://host/f?X-Amz-Signature=***",
    "Authorization: Bearer hunter2.hunter2": "Authorization: Bearer ***",
    "{'api_key': 'hunter2hunter2'}": "{'api_key': '***'}",
    "teacher.llm.body={api_key:hunter2hunter2,top_k:1}": "teacher.llm.body={api_key:***,top_k:1}",
    "- body={a:1, hf_token: hunter2hunter2}": "- body={a:1, hf_token: ***}",
    r"teacher.llm.base_url=http\://me\:hunter22@host\:8000/v1": r"teacher.llm.base_url=http\://***@host\:8000/v1",
    "wrong key sk-proj-0123456789abcdefXYZ given": "wrong key *** given",
    "hf_abcdefghijklmnopqrstuvwx": "***",
    "key=sk-0f1e2d3c4b5a69788796a5b4c3d2e1f0.": "key=***.",
    "sk-ant-api03-Ab_Cd-efGhIjKlMnOpQrSt2vWx": "***",
    "Authorization: Basic bWU6aHVudGVyMg==": "Authorization: Basic ***",
    "ghr_0123456789abcdefghijABCDEFGHIJ012345": "***",
    "git clone: glpat-AbCd_0123-efGhIjKlMn: refused": "git clone: ***: refused",
    f"nvapi-{'Ab1_' * 16}": "***",
    f"xai-{'Ab1d' * 20}, pplx-{'0a1B' * 12}": "***, ***",
}


def test_passwords_keys_and_tokens_are_taken_out():
    assert {text: redacted(text) for text in TAKEN_OUT} == TAKEN_OUT


@pytest.mark.parametrize("text", KEPT)
def test_other_texts_are_kept(text):
    assert redacted(text) == text == redacted(redacted(text))


@pytest.mark.parametrize("piece", ["sk-", "sk-a_", "a1-", "Basic ", "token="])
def test_a_hostile_text_takes_no_longer_than_others(piece):
    started = time.process_time()
    redacted("sk-" + piece * (60_000 // len(piece)))
    assert time.process_time() - started < 5  # quadratic time would be half a minute


def test_the_value_of_a_secret_variable_becomes_its_name(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "swordfish-1")
    monkeypatch.setenv("LONGER_TOKEN", "swordfish-1-and-more")
    monkeypatch.setenv("SHORT_TOKEN", "q1")
    monkeypatch.setenv("HOST_NAME", "swordfish")
    text = redacted("swordfish-1 and swordfish-1-and-more of q1 at swordfish")
    assert text == "${oc.env:SOME_API_KEY} and ${oc.env:LONGER_TOKEN} of q1 at swordfish"


@pytest.mark.parametrize("name", ["MY_APIKEY", "APIKEY", "OPENAI_API_KEY", "AWS_SECRETKEY", "PGPASSWORD", "hftoken"])
def test_a_secret_variables_name_need_not_have_an_underscore(monkeypatch, name):
    monkeypatch.setenv(name, "swordfish-1")
    assert redacted("a swordfish-1") == f"a ${{oc.env:{name}}}"
    monkeypatch.delenv(name)
    monkeypatch.setenv("MONKEY", "swordfish-1")
    assert redacted("a swordfish-1") == "a swordfish-1"


def test_a_secret_that_begins_with_a_slash_is_taken_out_and_the_path_of_a_file_is_kept(monkeypatch, tmp_path):
    (tmp_path / "key.json").write_text("{}")
    monkeypatch.setenv("SOME_KEY", "/Zm9vYmFy+secret/Zm9v==")
    monkeypatch.setenv("OTHER_CREDENTIALS", str(tmp_path / "key.json"))
    text = f"/Zm9vYmFy+secret/Zm9v== in {tmp_path}/key.json"
    assert redacted(text) == f"${{oc.env:SOME_KEY}} in {tmp_path}/key.json"


def test_paths_of_this_machine_are_left_out_for_others_behind_a_colon_or_brace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, shown in {
        "file:///home/me/x.run": "file://x.run",
        r"a=file\:///home/me/x.run,b": r"a=file\://x.run,b",
        f"file://{tmp_path}/out/x.run": "file://out/x.run",
        "{path:/home/me/q}": "{path:q}",
        r"{path\:/home/me/q,b:1}": r"{path\:q,b:1}",
        "{/home/me/q}": "{q}",
        "x:/home/me/a": "x:a",
        "<td>/home/me/a": "<td>a",
        "at https://host:8000/v1 and hf://datasets/a/b": "at https://host:8000/v1 and hf://datasets/a/b",
        "&lt;b&gt;bees&lt;/b&gt; <b>bees</b>": "&lt;b&gt;bees&lt;/b&gt; <b>bees</b>",
    }.items():
        assert for_others(text) == shown


def test_an_error_has_no_secret():
    assert str(InputError("http://a:b@host: no")) == "http://***@host: no"


def test_names_of_secret_keys():
    secret = ("api_key", "password", "llm.api_key", "hf_token", "TOKEN", "client-secret")
    plain = ("api_key_variable", "max_tokens", "tokenizer", "key", "text_fields", "secrets_of_success")
    assert all(map(is_secret_name, secret)) and not any(map(is_secret_name, plain))


@pytest.mark.parametrize("value", ["", " \n", "ab\ncd", "ab cd", "ab\x00cd", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_named_without_it(monkeypatch, value):
    monkeypatch.setattr("os.environ", {"SOME_KEY": value})
    with pytest.raises(InputError, match="SOME_KEY (is empty|holds a character that no key has)") as refused:
        read_key("SOME_KEY")
    assert not value.strip() or value not in str(refused.value)


def test_a_key_is_read_without_the_white_space_around_it(monkeypatch):
    monkeypatch.setenv("SOME_KEY", " sk-abcdef\n")
    assert read_key("SOME_KEY") == "sk-abcdef" and read_key(None) is None
    for given in ("sk-proj-0123", "hf_abc1", "my key", "", "NO-NAME"):
        with pytest.raises(InputError, match="must be the name of an environment variable") as refused:
            check_key_variable(given)
        assert not given or given not in str(refused.value)


@pytest.mark.parametrize("password", ["hunter2", "p@ss", "p'ss", 'p"ss', "p%40ss", "p:ss", "<ss>", "ü"])
def test_a_password_in_an_address_is_hidden_whatever_it_holds(password):
    address = f"http://me:{password}@host/v1/@cf"
    assert without_password(address) == redacted(address) == "http://***@host/v1/@cf"
    assert str(InputError(f"{address}: refused")) == "http://***@host/v1/@cf: refused"
    if not set(password) & set('"<'):
        assert redacted(f"asking '{address}' now") == "asking 'http://***@host/v1/@cf' now"
    if len(password) > 3:
        assert Secrets(address, None).hide(f"no {password}") == "no ***"


def test_a_key_is_not_sent_where_only_a_received_run_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    directory = tmp_path / "received"
    directory.mkdir()
    places = {"passages": "passages.tsv", "queries": "test/queries.tsv", "run": "test/first_stage.run.gz"}
    texts = [f"{name}={ROOT}/sample/{place}" for name, place in places.items()]
    llm = ["teacher.llm.model=x", "teacher.llm.base_url=https://evil/v1", "teacher.llm.api_key_variable=OPENAI_API_KEY"]
    own = compose_config("annotate", *texts, *llm)
    (directory / "config.yaml").write_text(saved_text(own))
    with pytest.raises(InputError, match="https://evil/v1: only the run's directory says that OPENAI_API_KEY is sent"):
        annotate.check(resumed(directory, name="annotate"))
    check_receiver(resumed(directory, name="annotate").teacher.llm, is_said=True)  # its key is on the command line
    annotate.check(resumed(directory, name="annotate"))
    for changed in ("teacher.llm.base_url=https://evil/v2", "teacher.llm.api_key_variable=HF_TOKEN"):
        (directory / "config.yaml").write_text(saved_text(compose_config("annotate", *texts, *llm, changed)))
        with pytest.raises(InputError, match="only the run's directory"):
            annotate.check(resumed(directory, name="annotate"))
    for harmless in ("teacher.llm.base_url=http://localhost:8000/v1", "teacher.llm.api_key_variable=null"):
        (directory / "config.yaml").write_text(saved_text(compose_config("annotate", *texts, *llm, harmless)))
        annotate.check(resumed(directory, name="annotate"))
    monkeypatch.setenv("DISTILL_CACHE", "/proc/x")  # nothing can be noted: it is asked again
    annotate.check(own)
    with pytest.raises(InputError, match="only the run's directory"):
        check_receiver(own.teacher.llm, is_said=False)


def test_an_endpoints_secrets_are_taken_out_of_its_answers():
    secrets = Secrets("http://me:p%40ss@host/v1", "sk-1234")
    assert secrets.url == "http://***@host/v1"
    assert secrets.hide("sk-1234, p@ss or p%40ss of me") == "***, *** or *** of me"
    assert Secrets("http://user-token@[::1", "k").hide("k user-token") == "k user-token"  # no address, and too short


def test_a_line_of_the_log_has_no_secret():
    record = logging.LogRecord("annotate", logging.INFO, "a.py", 1, "asking %s", ("http://me:hunter2@host/v1",), None)
    assert RedactedFormatter("%(message)s").format(record) == "asking http://***@host/v1"
