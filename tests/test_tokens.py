"""Token store and pair template against the tokenizer's own encoding of a pair."""

import numpy as np
import pytest
from conftest import FAMILIES, make_backbone
from transformers import AutoTokenizer

from distill.tokens import PairTemplate, TokenStore

TEXTS = {"q": "a bee finds its home", "d": "trains follow rails of iron through rain and snow", "e": ""}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_joined_pair_is_what_the_tokenizer_makes_of_it(tmp_path, family):
    tokenizer = AutoTokenizer.from_pretrained(make_backbone(tmp_path, family))
    store, template = TokenStore(tokenizer, TEXTS, 64), PairTemplate.of(tokenizer)
    tokens, types = template.join(store["q"], store["d"])
    expected = tokenizer(TEXTS["q"], TEXTS["d"], return_token_type_ids=True)
    assert tokens.tolist() == expected["input_ids"] and types.tolist() == expected["token_type_ids"]
    assert template.num_special == len(tokens) - len(store["q"]) - len(store["d"]) == (4 if family == "roberta" else 3)


def test_query_and_passage_are_cut_separately(backbone):
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    store, whole = TokenStore(tokenizer, TEXTS, 3), TokenStore(tokenizer, TEXTS, 64)
    assert [len(store[key]) for key in TEXTS] == [3, 3, 0]
    for key in TEXTS:
        np.testing.assert_array_equal(store[key], whole[key][:3])
