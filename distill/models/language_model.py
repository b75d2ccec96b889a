"""A causal language model that generates: its weights and its tokenizer, from a directory or the Hub.

tokenizer, model = load_language_model("Qwen/Qwen3-0.6B", torch.float32, "teacher.llm.model=Qwen/Qwen3-0.6B")
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distill.errors import InputError
from distill.models.model_files import check_source
from distill.models.parts import check_longest_text, check_whole, explained
from distill.models.sizes import check_size, match_vocabulary, num_embeddings
from distill.models.tokenizer_files import check_class

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_language_model(name: str, dtype: torch.dtype, given: str) -> "tuple[Any, PreTrainedModel]":
    """Return tokenizer, which pads on the left, and model; given: the key and its value, for errors.

    Raises InputError for what cannot be loaded, or is damaged, and for a model that comes with code.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with explained(given, "as a language model"):
        check_source(name)
        if os.path.isdir(name):
            path = Path(name)
            if not any(path.glob("*.safetensors")):
                raise InputError(f"{given}: cannot be loaded as a language model: has no safetensors weights")
            check_class(path)
            check_size(AutoModelForCausalLM, AutoConfig.from_pretrained(path, trust_remote_code=False), path)
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", trust_remote_code=False)
        check_longest_text(name, tokenizer)
        model, info = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        check_whole(Path(name), info["missing_keys"])  # transformers would make them random
        match_vocabulary(given, tokenizer, num_embeddings(model))
    return tokenizer, model
