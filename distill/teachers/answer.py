"""A model's answer to one request, and what an endpoint's chat completion says of it.

    answer = read_completion(json.loads(body), messages, seconds=1.4)       # Answer(text, tokens_in, tokens_out, ...)

Endpoints differ in all that is not text: content may be null, or a list of parts, and usage may be absent or text.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distill.storage.json_numbers import is_number
from distill.teachers.lengths import num_tokens_of
from distill.teachers.prompt import Messages

ORDINARY = (None, "stop", "end_turn", "eos")  # reasons to end that need no mention
THOUGHTS = ("thinking", "reasoning", "thought", "redacted_thinking")  # types of the parts that are no answer
MOST_TOKENS = 10**9  # more is no count


@dataclass
class Answer:
    """A model's answer to one request."""

    text: str
    tokens_in: int
    tokens_out: int
    seconds: float
    score: float | None = None  # pointwise: log p(yes) - log p(no), None if the model would generate neither
    finish: str | None = None  # why it ended, if not because it was complete, such as "length"
    refused: str | None = None  # why there is no answer; such an answer is not kept
    is_too_long: bool = False  # refused, since the passages do not fit into what the model reads

    def to_json(self) -> dict:
        """Return the answer as the journal stores it."""
        names = (
            "text",
            "tokens_in",
            "tokens_out",
            "seconds",
            "score",
            *(("finish",) if self.finish is not None else ()),
        )
        return {name: getattr(self, name) for name in names}


def num_tokens(messages: Messages) -> int:
    """Return the approximate number of tokens of the messages."""
    return num_tokens_of("".join(message["content"] for message in messages))


def read_completion(completion: Any, messages: Messages, seconds: float) -> Answer:
    """Return the answer of a chat completion; raises ValueError if there is none."""
    choice = _first_choice(completion)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ValueError("its choice has no message")
    text, finish = _text_of(message.get("content")), choice.get("finish_reason")
    if not text and message.get("refusal"):
        finish = "refusal"
    usage = completion.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Answer(
        text,
        _count(usage.get("prompt_tokens"), lambda: num_tokens(messages)),
        _count(usage.get("completion_tokens"), lambda: num_tokens_of(text)),
        seconds,
        finish=None if finish in ORDINARY or not isinstance(finish, str) else well_formed(finish)[:40],
    )


def _first_choice(completion: Any) -> dict:
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("it has no choices")
    return choices[0]


def _text_of(content: Any) -> str:
    """Return the text of a message's content: text, null, or a list of parts, of which thoughts are left out."""
    if content is None:
        return ""
    if isinstance(content, str):
        return well_formed(content)
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise ValueError("its content is no text")
    parts = [part for part in content if not (isinstance(part, dict) and part.get("type") in THOUGHTS)]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return well_formed("".join(text for text in texts if isinstance(text, str)))


def well_formed(text: str) -> str:
    """Return a text that UTF-8 can write: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _count(value: Any, estimate: Callable[[], int]) -> int:
    """Return a number of tokens, also one given as text; the estimate if it is none."""
    try:
        number = int(value) if not isinstance(value, bool) else -1
    except (TypeError, ValueError, OverflowError):
        return estimate()
    return number if 0 <= number < MOST_TOKENS else estimate()


def read_logprobs(completion: Any) -> list[tuple[str, float]] | None:
    """Return the likeliest first tokens of an answer, with log-probabilities; None if the endpoint gives none.

    Raises ValueError if they are no tokens with numbers.
    """
    logprobs = _first_choice(completion).get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if content is None:
        return None
    if not isinstance(content, list):
        raise ValueError("its logprobs are no list")
    if not content:
        return []
    tokens = content[0].get("top_logprobs") if isinstance(content[0], dict) else None
    if not isinstance(tokens, list):
        raise ValueError("its logprobs have no top_logprobs")
    return [_read_logprob(token) for token in tokens]


def _read_logprob(token: Any) -> tuple[str, float]:
    text = token.get("token") if isinstance(token, dict) else None
    value = token.get("logprob") if isinstance(token, dict) else None
    if not isinstance(text, str) or not is_number(value) or math.isnan(value):
        raise ValueError("its top_logprobs are no tokens with numbers")
    return text, min(float(value), 0.0)
