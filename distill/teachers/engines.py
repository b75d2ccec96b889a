"""Engines that run LLMs: an OpenAI-compatible endpoint over HTTP, or a local transformers model.

    engine = HttpEngine(cfg.llm, "listwise")
    (answer,) = engine.ask([messages])              # Answer(text, tokens_in, tokens_out, seconds, score)

`at_once` is how many requests an engine takes at a time; an HttpEngine may be called from that many threads.
"""

import logging
import os
import random
import re
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from omegaconf import DictConfig

from distill.errors import InputError
from distill.teachers.pointwise import NO, YES, yes_no_score
from distill.teachers.prompt import Messages

log = logging.getLogger(__name__)

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # HTTP statuses of transient errors
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds, if the server does not say how long to wait
TOP_LOGPROBS = 20  # likeliest tokens that an endpoint lists; most endpoints allow no more
CHARACTERS = 4  # assumed per token, if the server does not report token counts


@dataclass
class Answer:
    """A model's answer to one request."""

    text: str
    tokens_in: int
    tokens_out: int
    seconds: float
    score: float | None = None  # pointwise: log p(yes) - log p(no), None if the model would generate neither

    def to_json(self) -> dict:
        """Return the answer as the journal stores it."""
        return asdict(self)


def num_tokens(messages: Messages) -> int:
    """Return the approximate number of tokens of the messages."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS


class HttpEngine:
    """Sends requests to `POST base_url/chat/completions`, and retries transient errors.

    Transient errors are HTTP statuses such as 429 and 503, timeouts, lost connections and answers of the wrong form.
    This loop reads Retry-After, counts failures and can be cancelled: tenacity would need a callback for each.
    """

    in_batches = False  # requests are sent one at a time, from several threads

    def __init__(self, cfg: DictConfig, method: str):
        """Open the connections; raises InputError if the key's environment variable is not set."""
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request
        self.cfg, self.at_once, self.pointwise = cfg, cfg.concurrency, method == "pointwise"
        headers = {}
        if cfg.api_key_variable:
            if cfg.api_key_variable not in os.environ:
                raise InputError(f"{cfg.api_key_variable} is not set: put the endpoint's key into this variable")
            headers["Authorization"] = f"Bearer {os.environ[cfg.api_key_variable]}"
        limits = httpx.Limits(max_connections=cfg.concurrency, max_keepalive_connections=cfg.concurrency)
        self.client = httpx.Client(headers=headers, timeout=cfg.timeout, limits=limits)
        self.lock, self.next_time = threading.Lock(), 0.0
        self.failures: Counter[str] = Counter()  # retries, by kind of error
        self.stopped = threading.Event()

    @property
    def options(self) -> dict:
        """The options that an answer depends on, besides model and messages; not the address of the server."""
        max_tokens = 1 if self.pointwise else self.cfg.max_tokens
        return {"temperature": self.cfg.temperature, "max_tokens": max_tokens}

    def ask(self, requests: list[Messages]) -> list[Answer]:
        """Answer requests one after the other; raises InputError for a permanent error, or after too many retries."""
        return [self._ask(messages) for messages in requests]

    def _ask(self, messages: Messages) -> Answer:
        import httpx

        options = self.options
        body = {"model": self.cfg.model, "messages": messages}
        body |= {name: options[name] for name in ("temperature", "max_tokens")}
        if self.pointwise:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        url, reason = self.cfg.base_url.rstrip("/") + "/chat/completions", ""
        kind = ""
        for attempt in range(self.cfg.retries + 1):
            self._wait_for_turn()
            start, pause = time.perf_counter(), None
            try:
                response = self.client.post(url, json=body)
                if response.status_code == 200:
                    completion = response.json()
                    answer = _read_answer(completion, messages, time.perf_counter() - start)
                    if self.pointwise:
                        answer.score = self._read_score(completion["choices"][0])
                    return answer
                kind = f"status {response.status_code}"
                reason = f"{kind}: {' '.join(response.text.split())[:150]}"
                if response.status_code not in RETRIED:
                    raise InputError(f"{url} refuses the request with {reason}: check teacher.llm")
                pause = _retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
            except httpx.TransportError as error:
                kind = type(error).__name__
                reason = f"{kind}: {error}"
            except InputError:
                raise
            except (ValueError, KeyError, IndexError, TypeError):
                kind = reason = "no chat completion"
            if attempt < self.cfg.retries:
                with self.lock:
                    self.failures[kind] += 1
                if pause is not None and pause > LONGEST_PAUSE:
                    log.warning("%s asks to wait %.0f seconds before the next request", url, pause)
                backoff = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * (0.5 + random.random())
                self._pause(pause if pause is not None else backoff)
        raise InputError(
            f"{url} failed {self.cfg.retries + 1} times in a row ({reason}): once it works again, "
            "resume=DIRECTORY requests only what is missing"
        )

    def _read_score(self, choice: dict) -> float | None:
        tokens = (choice.get("logprobs") or {}).get("content")
        if tokens is None:
            raise InputError(
                f"{self.cfg.base_url} answers without logprobs, which method=pointwise needs: use another endpoint, "
                "llm@teacher.llm=local or method=listwise"
            )
        if not tokens:
            return None
        return yes_no_score([(token["token"], token["logprob"]) for token in tokens[0]["top_logprobs"]])

    def _wait_for_turn(self) -> None:
        """Wait so that requests are spaced evenly, if requests_per_minute is set."""
        if not self.cfg.requests_per_minute:
            return
        with self.lock:
            turn = max(self.next_time, time.monotonic())
            self.next_time = turn + 60 / self.cfg.requests_per_minute
        self._pause(max(turn - time.monotonic(), 0))

    def _pause(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise InputError("stopped: resume=DIRECTORY requests only what is missing")

    def stop(self) -> None:
        """Cancel requests that wait for their turn or for a retry; those in flight still return."""
        self.stopped.set()

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def _read_answer(completion: dict, messages: Messages, seconds: float) -> Answer:
    text = completion["choices"][0]["message"]["content"] or ""
    usage = completion.get("usage") or {}
    tokens_out = usage.get("completion_tokens", len(text) // CHARACTERS)
    return Answer(text, usage.get("prompt_tokens", num_tokens(messages)), tokens_out, seconds)


def _retry_after(header: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header, a number or a date, asks for; None if it is absent or invalid."""
    if header is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", header.strip()):
        return float(header)
    try:
        return max((parsedate_to_datetime(header) - now).total_seconds(), 0)
    except (TypeError, ValueError):
        return None


class LocalEngine:
    """Generates with a causal language model of transformers, several requests per batch."""

    in_batches = True

    def __init__(self, cfg: DictConfig, device, method: str):
        """Load the model by directory or Hub id, from safetensors; raises InputError if it cannot be loaded."""
        import torch

        from distill.models.language_model import load_language_model

        self.cfg, self.at_once = cfg, cfg.batch_size
        self.failures: Counter[str] = Counter()
        self.pointwise = method == "pointwise"
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.tokenizer, self.model = load_language_model(cfg.model, dtype, f"teacher.llm.model={cfg.model}")
        self.model = self.model.to(device).eval()
        self.context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if self.pointwise:
            self.words = [self._tokens_of(word) for word in (YES, NO)]

    @property
    def options(self) -> dict:
        """The options that an answer depends on, besides model and messages."""
        return {"max_tokens": 1 if self.pointwise else self.cfg.max_tokens, "temperature": 0.0}

    def ask(self, requests: list[Messages]) -> list[Answer]:
        """Answer requests in one batch, with greedy decoding."""
        import torch

        start = time.perf_counter()
        texts = [self._text(messages) for messages in requests]
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        encoded = {name: encoded[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        longest, max_tokens = encoded["input_ids"].shape[1], self.options["max_tokens"]
        if self.context is not None and longest + max_tokens > self.context:
            raise InputError(
                f"{self.cfg.model}: reads {self.context} tokens, but a prompt has {longest} and its answer "
                f"teacher.llm.max_tokens={max_tokens}: lower window, or max_words of the prompt"
            )
        with torch.inference_mode():
            out = self.model.generate(
                **encoded, max_new_tokens=max_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id,
                output_logits=self.pointwise, return_dict_in_generate=True,
            )  # fmt: skip
        new, scores = out.sequences[:, longest:], [None] * len(requests)
        if self.pointwise:
            first = out.logits[0].float()  # [B, vocabulary], for the first token of each answer
            yes, no = (first[:, tokens].logsumexp(dim=1) for tokens in self.words)
            scores = (yes - no).tolist()
        seconds = (time.perf_counter() - start) / len(requests)
        return [
            Answer(
                self.tokenizer.decode(tokens, skip_special_tokens=True),
                int(mask.sum()),
                int((tokens != self.tokenizer.pad_token_id).sum()),
                seconds,
                score,
            )
            for tokens, mask, score in zip(new, encoded["attention_mask"], scores, strict=True)
        ]

    def _tokens_of(self, word: str) -> list[int]:
        """Return the tokens that can start an answer with this word."""
        forms = [space + form for space in ("", " ") for form in (word, word.capitalize(), word.upper())]
        encoded = [self.tokenizer.encode(form, add_special_tokens=False) for form in forms]
        tokens = {ids[0] for ids in encoded if len(ids) == 1} - {self.tokenizer.unk_token_id}
        if not tokens:
            raise InputError(f"{self.cfg.model}: has no token for {word}, which method=pointwise needs: use listwise")
        return sorted(tokens)

    def _text(self, messages: Messages) -> str:
        if self.tokenizer.chat_template:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return "\n".join(message["content"] for message in messages) + "\n"

    def close(self) -> None:
        """Do nothing: nothing is open."""
