"""A local LLM's answer to one request, beside its own logits for the first token of an answer."""

from pathlib import Path

import torch

from distill.teachers.answer import Answer
from distill.teachers.local import LocalEngine
from tests.helpers.backbones import WORDS
from tests.helpers.configuration import compose_config


def answer_and_logits(directory: Path, method: str, words: list[str], *files: str) -> tuple[Answer, torch.Tensor]:
    """Return what a language model answers by a method, and the logits of some words; files: for the configuration."""
    from transformers import AutoTokenizer

    cfg = compose_config("annotate", *files, "llm@teacher.llm=local", f"teacher.llm.model={directory}")
    engine = LocalEngine(cfg.teacher.llm, torch.device("cpu"), method)
    text = " ".join(WORDS[:7])
    (answer,) = engine.ask([[{"role": "user", "content": text}]])
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = engine.model(ids).logits[0, -1]
    return answer, logits[tokenizer.convert_tokens_to_ids(words)]
