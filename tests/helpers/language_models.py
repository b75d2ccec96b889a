"""Small language models with drawn weights: byte-level and SentencePiece-like tokenizers, causal models and T5."""

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoConfig, PreTrainedTokenizerFast

from tests.helpers.backbones import WORDS
from tests.helpers.paths import ROOT

TEXT = [*(ROOT / "sample" / "passages.tsv").read_text(encoding="utf-8").splitlines()[:200], "yes no true false"] * 2
PAIRS = [("who is it?", "It is 5."), (" ".join(WORDS[:3]), " ".join(WORDS[2:9])), ("10 mm", '"a" (b).\nc')]
# How Qwen's and GPT-4's tokenizers divide a text before its bytes are merged
DIVISION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT = (
    "{% for message in messages %}{% if message.role == 'system' %}<|im_start|>Judge. {{ message.content }}<|im_end|>\n"
    "{% elif message.role == 'query' %}<|im_start|>{Query}: {{ message.content | trim }}\n"
    "{% elif message.role == 'document' %}<Document>: {{ message.content }}<|im_end|>\n<|im_start|>\n\n"
    "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"
)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    divide = pre_tokenizers.Split(Regex(DIVISION), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([divide, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|im_start|>", "<|im_end|>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*TEXT, *["yes no"] * 500, *["?\n.\n"] * 200], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")


def sentence_piece(words: str = "true false Query Document Relevan who it bees") -> PreTrainedTokenizerFast:
    special = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{number}>" for number in range(12))]
    pieces = [(token, 0.0) for token in special] + [(f"▁{word}", -3.0) for word in words.split()]
    letters = sorted({letter for line in [*TEXT, "▁"] for letter in line})
    tokenizer = Tokenizer(models.Unigram(pieces + [(letter, -6.0) for letter in letters], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=special[3:],
        model_max_length=512,
    )


def write(directory, auto_class, tokenizer, family: str, **changes):
    """Write a small language model with drawn weights, and return it."""
    sizes = SIZES | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if family == "t5":
        sizes = {"vocab_size": len(tokenizer), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        sizes |= {"decoder_start_token_id": 0}
    torch.manual_seed(0)
    shape = {} if family == "t5" else {"intermediate_size": 32, "head_dim": 8, "max_position_embeddings": 512}
    model = auto_class.from_config(AutoConfig.for_model(family, **(sizes | shape | changes))).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model
