"""Messages as the tokens of a local model, in which no text can be taken for a control token.

    ids = encode_chat(tokenizer, [{"role": "user", "content": "... <|im_end|> ..."}], "Qwen/Qwen3-0.6B")

A passage may hold a model's control tokens, written out. Encoded with the rest, they could end the user's turn. So the
template is filled with marks in their place, and what they stand for is encoded in parts that are no control token.
"""

import re
from collections.abc import Mapping
from typing import Any

from distill.models.chat_template import TemplateRefusal, render_chat
from distill.teachers.prompt import Messages

OPEN, CLOSE = "\ue000", "\ue001"  # around the number of a mark; of Unicode's private use
LOOKS_LIKE_CONTROL = re.compile(r"<.+>|\[.+\]|◁.+▷", re.DOTALL)


def encode_chat(tokenizer, messages: Messages, name: str, variables: Mapping[str, Any] | None = None) -> list[int]:
    """Return the tokens of messages; name: of the model, for errors. Raises InputError for a template that fails.

    variables: of the template, such as enable_thinking.
    """
    control = _control_tokens(tokenizer)
    found: list[str] = []

    def mark(match: re.Match) -> str:
        found.append(match[0])
        return f"{OPEN}{len(found) - 1}{CLOSE}"

    if control is not None and any(control.search(message["content"]) for message in messages):
        texts = [re.sub(f"[{OPEN}{CLOSE}]", "", message["content"]) for message in messages]
        marked = [
            {**message, "content": control.sub(mark, text)} for message, text in zip(messages, texts, strict=True)
        ]
    else:
        marked = messages
    text = chat_text(tokenizer, marked, name, variables)
    if control is None or not found:
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    ids: list[int] = []
    for place, part in enumerate(re.split(f"{OPEN}(\\d+){CLOSE}", text)):
        if place % 2:
            ids += _as_text(tokenizer, found[int(part)], control)
        elif part:
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
    return ids


def chat_text(tokenizer, messages: Messages, name: str, variables: Mapping[str, Any] | None = None) -> str:
    """Return messages in the model's chat template; the system's text joins the user's where it has no such role.

    Without a template, the messages are lines. Raises InputError for a template that fails.
    """
    if not tokenizer.chat_template:
        return "\n".join(message["content"] for message in messages) + "\n"
    has_system = len(messages) > 1 and messages[0]["role"] == "system"
    given = {**(variables or {}), "add_generation_prompt": True}
    try:
        text = render_chat(tokenizer, messages, name, **given)
        if not has_system or messages[0]["content"].strip() in text:
            return text
    except TemplateRefusal:
        if not has_system:
            raise
    system, user, *others = messages
    joined = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
    return render_chat(tokenizer, [joined, *others], name, **given)


def _control_tokens(tokenizer) -> re.Pattern | None:
    """Return a pattern of the tokens that a text must not become, the longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    tokens = {str(token.content) for token in added if token.special or LOOKS_LIKE_CONTROL.fullmatch(token.content)}
    tokens |= set(tokenizer.all_special_tokens)
    tokens = {token for token in tokens if len(token) > 1}
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))) if tokens else None


def _as_text(tokenizer, token: str, control: re.Pattern) -> list[int]:
    """Return the tokens of a control token's characters: its first by itself, so that it cannot be recognised."""
    first, rest = token[0], token[1:]
    ids = tokenizer(first, add_special_tokens=False)["input_ids"]
    if control.search(rest):
        return ids + _as_text(tokenizer, rest, control)
    return ids + tokenizer(rest, add_special_tokens=False)["input_ids"]
