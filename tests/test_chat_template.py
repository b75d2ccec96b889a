"""Chat templates: rendered as transformers renders them, within limits."""

import time
from types import SimpleNamespace

import pytest

from distill.errors import InputError
from distill.models import chat_template
from distill.models.chat_template import TemplateRefusal, render_chat
from tests.helpers.backbones import WORDS, make_backbone

MESSAGES = [{"role": "system", "content": "Rank {{ 'it' }}"}, {"role": "user", "content": "bees é\n<|im_end|>"}]
LIKE_QWEN = (  # blocks on their own lines, loop controls, a macro, and transformers' own tag and filter
    "{% macro turn(m) %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endmacro %}\n"
    "{%- for m in messages %}\n    {%- if loop.index > 9 %}{% break %}{% endif %}\n"
    "    {% generation %}{{ turn(m) }}{% endgeneration %}\n{% endfor %}\n"
    "{{ bos_token }}{{ {'é': 1} | tojson }}{{ unknown }}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_template(template):
    return SimpleNamespace(chat_template=template, special_tokens_map={})


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("several", [True, False])
def test_a_template_gives_the_text_that_transformers_gives(tmp_path, several, add_generation_prompt):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_backbone(tmp_path, words=WORDS))
    tokenizer.bos_token = "[CLS]"
    tokenizer.chat_template = {"default": LIKE_QWEN, "tool_use": "no"} if several else LIKE_QWEN
    options = {"add_generation_prompt": add_generation_prompt}
    expected = tokenizer.apply_chat_template(MESSAGES, tokenize=False, **options)
    assert "[CLS]" in expected and ("assistant" in expected) == add_generation_prompt
    assert render_chat(tokenizer, MESSAGES, "NAME", **options) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 'x' * 10**9 }}",
        "{{ 'x'.ljust(10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    ],
)
def test_a_template_that_never_ends_or_grows_is_refused_and_the_next_one_rendered(template, monkeypatch):
    render_chat(with_template("{{ messages[0].role }}"), MESSAGES, "NAME")  # started
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(InputError, match="NAME: its chat template takes more than") as refused:
        render_chat(with_template(template), MESSAGES, "NAME")
    assert time.monotonic() - start < 5 and not isinstance(refused.value, TemplateRefusal)
    monkeypatch.undo()
    assert render_chat(with_template("{{ messages[0].role }}"), MESSAGES, "NAME") == "system"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no system role\nhere') }}", "no system role"),
        ("{{", "TemplateSyntaxError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages[0].content.nothing.there }}", "UndefinedError"),
        ("{{ 'x' * (2 * 10**7) }}", "writes 20000000 characters"),
        ({"a": "b"}, "no chat template"),
    ],
)
def test_a_template_that_fails_is_named_in_one_line(template, reason):
    with pytest.raises(TemplateRefusal, match=reason) as refused:
        render_chat(with_template(template), MESSAGES, "NAME")
    assert "\n" not in str(refused.value) and str(refused.value).startswith("NAME: ")


def test_a_template_sees_no_secret_of_the_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    chat_template._PROCESS._start()
    with open(f"/proc/{chat_template._PROCESS.process.pid}/environ", "rb") as file:
        assert b"hf_secret" not in file.read()
