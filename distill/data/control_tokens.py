"""Control tokens in texts: `[SEP]` that somebody typed in a passage is text, and must not end the passage.

    tokenizer = read_as_text(tokenizer)        # [SEP] in a text: [, sep and ], as for any other word in brackets

Models that are trained here read texts so, and their files say it: `split_special_tokens` in tokenizer_config.json,
which transformers and sentence-transformers follow. Published models keep what they were published with, since their
scores depend on it. Tokens that are added around the texts are not affected.

The setting is not enough where the control tokens are also words of the vocabulary, as those of SentencePiece unigram
models are (DeBERTa, XLM-RoBERTa): there, a space is put after the token's first character, and the files name the
general class of tokenizers, which reads this step from tokenizer.json. Other classes would build their own steps.
"""

from distill.errors import InputError


def read_as_text(tokenizer):
    """Return a tokenizer that reads control tokens within texts as text: the same one, or a copy of another class.

    Raises InputError for a tokenizer that cannot.
    """
    tokenizer.split_special_tokens = True
    tokenizer.init_kwargs["split_special_tokens"] = True  # what its files will say
    tokenizer.backend_tokenizer.encode_special_tokens = True
    reached = control_tokens_in_text(tokenizer)
    if not reached:
        return tokenizer
    tokenizer = _with_spaces(tokenizer, reached)
    if reached := control_tokens_in_text(tokenizer):
        raise InputError(f"its tokenizer reads {reached[0]} in a text as a control token: use another backbone")
    return tokenizer


def control_tokens_in_text(tokenizer) -> list[str]:
    """Return the control tokens that a text can hold as such; that for unknown words is not one of them."""
    tokens = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    unknown = tokenizer("\uffff \U0010fffd", add_special_tokens=False)["input_ids"]
    for index in (tokenizer.unk_token_id, *unknown):
        tokens.pop(index, None)
    texts = [form.format(token) for token in tokens.values() for form in ("{}", "a{}a", "a {} a")]
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return sorted({tokens[index] for ids in encoded for index in ids if index in tokens})


def _with_spaces(tokenizer, tokens: list[str]):
    from tokenizers import Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    spaced = [normalizers.Replace(token, f"{token[0]} {token[1:]}") for token in tokens]
    first = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([*first, *spaced])
    named = tokenizer.special_tokens_map
    copy = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        split_special_tokens=True,
        model_input_names=list(tokenizer.model_input_names),
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        extra_special_tokens=[token for token in tokenizer.all_special_tokens if token not in named.values()],
        **named,
    )
    copy.backend_tokenizer.encode_special_tokens = True
    return copy
