"""A causal language model of transformers on this machine, as a teacher.

engine = LocalEngine(cfg.teacher.llm, device, "listwise")
answers = engine.ask([messages, messages])      # in one batch
"""

import time
from collections import Counter

from omegaconf import DictConfig

from distill.errors import InputError
from distill.teachers.answer import Answer
from distill.teachers.chat import encode_chat
from distill.teachers.first_token import ranking_of_letters
from distill.teachers.grades import DIGITS, expected_grade
from distill.teachers.parameters import body_of
from distill.teachers.pointwise import NO, YES
from distill.teachers.prompt import LETTERS, Messages


class LocalEngine:
    """Generates with a causal language model of transformers, several requests per batch."""

    in_batches = True

    def __init__(self, cfg: DictConfig, device, method: str):
        """Load the model by directory or Hub id, from safetensors; raises InputError if it cannot be loaded."""
        import torch

        from distill.models.language_model import load_language_model

        self.cfg, self.at_once = cfg, cfg.batch_size
        self.failures: Counter[str] = Counter()
        self.adapted: list[str] = []
        self.method, self.by_logits = method, method != "listwise"
        self.body = body_of(cfg)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.tokenizer, self.model = load_language_model(cfg.model, dtype, f"teacher.llm.model={cfg.model}")
        self.model = self.model.to(device).eval()
        self.context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if method == "pointwise":
            self.words = [self._tokens_of(word, word.capitalize(), word.upper()) for word in (YES, NO)]
        elif method != "listwise":
            self.words = [self._tokens_of(word) for word in (LETTERS if method == "first-token" else DIGITS)]

    @property
    def options(self) -> dict:
        """The options that an answer depends on, besides model and messages."""
        options = {"max_tokens": 1 if self.by_logits else self.cfg.max_tokens, "temperature": 0.0}
        return options | ({"body": self.body} if self.body else {})

    def ask(self, requests: list[Messages]) -> list[Answer]:
        """Answer requests in one batch, with greedy decoding; what is too long for the model is refused."""
        variables = self.body.get("chat_template_kwargs")
        encoded = [encode_chat(self.tokenizer, messages, self.cfg.model, variables) for messages in requests]
        max_tokens = self.options["max_tokens"]
        fit = [ids for ids in encoded if self.context is None or len(ids) + max_tokens <= self.context]
        answers = iter(self._generate(fit) if fit else [])
        return [
            next(answers) if self.context is None or len(ids) + max_tokens <= self.context else self._too_long(ids)
            for ids in encoded
        ]

    def _too_long(self, ids: list[int]) -> Answer:
        reason = (
            f"it reads {self.context} tokens, but a prompt has {len(ids)} and its answer teacher.llm.max_tokens="
            f"{self.options['max_tokens']}: lower window, or max_words of the prompt"
        )
        return Answer("", 0, 0, 0.0, refused=reason, is_too_long=True)

    def _generate(self, encoded: list[list[int]]) -> list[Answer]:
        import torch

        start = time.perf_counter()
        batch = self.tokenizer.pad({"input_ids": encoded}, padding=True, return_tensors="pt")
        batch = {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        longest = batch["input_ids"].shape[1]
        with torch.inference_mode():
            out = self.model.generate(
                **batch, max_new_tokens=self.options["max_tokens"], do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id, output_logits=self.by_logits, return_dict_in_generate=True,
            )  # fmt: skip
        new = out.sequences[:, longest:]
        scores: list[float | None] = [None] * len(encoded)
        texts = [self.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in new]
        if self.by_logits:
            first = out.logits[0].float().log_softmax(dim=1)  # [B, vocabulary], for the first token of each answer
            words = torch.stack([first[:, tokens].logsumexp(dim=1) for tokens in self.words], dim=1)  # [B, words]
            if self.method == "pointwise":
                scores = (words[:, 0] - words[:, 1]).tolist()
            elif self.method == "graded":
                scores = [expected_grade(list(zip(DIGITS, row, strict=True))) for row in words.tolist()]
            else:
                texts = [ranking_of_letters(list(zip(LETTERS, row, strict=True))) for row in words.tolist()]
        seconds = (time.perf_counter() - start) / len(encoded)
        ends = self.model.generation_config.eos_token_id
        complete = {self.tokenizer.pad_token_id, *(ends if isinstance(ends, list) else [ends])}  # last tokens
        is_cut = not self.by_logits and new.shape[1] == self.options["max_tokens"]
        return [
            Answer(
                text,
                len(ids),
                int((tokens != self.tokenizer.pad_token_id).sum()),
                seconds,
                score,
                finish="length" if is_cut and int(tokens[-1]) not in complete else None,
            )
            for text, tokens, ids, score in zip(texts, new, encoded, scores, strict=True)
        ]

    def _tokens_of(self, *forms: str) -> list[int]:
        """Return the tokens that can start an answer with a word in one of these forms."""
        forms = tuple(space + form for space in ("", " ") for form in forms)
        encoded = [self.tokenizer.encode(form, add_special_tokens=False) for form in forms]
        tokens = {ids[0] for ids in encoded if len(ids) == 1} - {self.tokenizer.unk_token_id}
        if not tokens:
            raise InputError(
                f"{self.cfg.model}: has no token for {forms[0]}, which method={self.method} needs: use listwise"
            )
        return sorted(tokens)

    def stop(self) -> None:
        """Do nothing: no request waits."""

    def close(self) -> None:
        """Do nothing: nothing is open."""
