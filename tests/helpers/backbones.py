"""Tiny real encoders and language models with a word-level tokenizer, in Hugging Face directories."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

FAMILIES = ["bert", "electra", "roberta", "modernbert", "deberta-v2"]
PACKED_FAMILIES = ["bert", "electra", "roberta", "modernbert"]
WORDS = "a bee finds its home by the sun and so does an ant but trains follow rails of iron through rain snow".split()
SPECIALS = {name: ("<s>", "</s>", "<pad>", "<unk>", "<mask>") for name in ("roberta", "xlm-roberta", "mpnet")}
BERT_SPECIALS = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


def make_backbone(
    directory: Path, family: str = "bert", seed: int = 0, words: list[str] = WORDS, num_layers: int = 2
) -> Path:
    """Write an encoder with a word-level tokenizer, as Hugging Face directories are."""
    cls, sep, pad, unk, mask = SPECIALS.get(family, BERT_SPECIALS)
    vocabulary = {word: index for index, word in enumerate([pad, unk, cls, sep, mask, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = f"{cls} $A {sep} {sep} $B {sep}" if family in SPECIALS else f"{cls} $A {sep} $B:1 {sep}:1"
    specials = [(cls, vocabulary[cls]), (sep, vocabulary[sep])]
    tokenizer.post_processor = processors.TemplateProcessing(f"{cls} $A {sep}", pair, specials)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk, mask_token=mask
    )
    sizes = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 2,
    }
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": vocabulary[pad]}
    if family == "modernbert":
        sizes |= {"local_attention": 8, "global_attn_every_n_layers": 2}
        sizes |= {name: vocabulary[token] for name, token in (("cls_token_id", cls), ("sep_token_id", sep))}
        sizes |= {"bos_token_id": vocabulary[cls], "eos_token_id": vocabulary[sep]}
    if family in ("electra", "albert"):
        sizes |= {"embedding_size": 8}
    if family == "distilbert":
        sizes |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.for_model(family, **sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # the usual 0.02 makes all scores nearly equal
    model.save_pretrained(directory)
    wrapped.save_pretrained(directory)
    return directory


def make_language_model(directory: Path, words: list[str] = WORDS) -> Path:
    """Write a two-layer causal language model with random weights and a word-level tokenizer."""
    make_backbone(directory, words=words)
    torch.manual_seed(0)
    size = len(AutoTokenizer.from_pretrained(directory))
    config = AutoConfig.for_model("llama", vocab_size=size, hidden_size=16, num_hidden_layers=2,
                                  num_attention_heads=2, intermediate_size=32, pad_token_id=0)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def positions(directory, number: int = 600):
    """A tiny backbone that reads so many tokens."""
    config = json.loads((directory / "config.json").read_text()) | {"max_position_embeddings": number}
    (directory / "config.json").write_text(json.dumps(config))
    model = AutoModel.from_config(AutoModel.from_pretrained(directory, ignore_mismatched_sizes=True).config)
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory)
    return directory
