"""Pre-train the sample's tiny encoder on the text of its training split: python sample/pretrain.py

Real cross-encoders start from an encoder that already knows words. This one learns from unlabelled text which words two
texts share, or nearly share: it counts the words of a random query that a bag of random words holds, either themselves
or by a word that goes with them. Words go together that stand in one passage far more often than chance would have it;
passages say some things twice in other words, so that these are mostly synonyms.

The validation and test splits, rankings and labels are not read. The encoder starts with similar
vectors for words that go together, and with heads in the first layer that look for similar words elsewhere (after the
mimetic initialisation of Trockman and Kolter 2023), without which counting takes ten times as many steps. Writes
sample/backbone/ with weights in half precision; about two minutes on one core.
"""

import gzip
import math
import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer
from tqdm import trange
from transformers import BertConfig, BertModel, BertTokenizer

FOLDER = Path(__file__).resolve().parent
SEED = 0
STEPS, WARMUP, LR = 1000, 50, 2e-3
BATCH = 128  # pairs in a step
MIN_LIFT, MIN_EVIDENCE = 3.0, 9.0  # times as often as by chance; nats by which chance is the worse explanation
SHARPNESS = 1.0  # of the first layer's search for the same word
CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": 128,
    "hidden_dropout_prob": 0.0,  # so small a model has nothing to spare
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.1,
}


def main():
    random.seed(SEED)
    torch.manual_seed(SEED)
    queries, passages = read_training_text()
    tokenizer = train_tokenizer([*queries, *passages])
    encoder = BertModel(BertConfig(vocab_size=len(tokenizer), **CONFIG), add_pooling_layer=False)
    passages = [set(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in passages]
    partners = find_partners(passages)
    initialise(encoder, partners)
    pretrain(encoder, tokenizer, partners)
    encoder.half().save_pretrained(FOLDER / "backbone")


def read_training_text():
    """The texts of the training queries, and of the passages that were retrieved for them."""
    with gzip.open(FOLDER / "train" / "first_stage.run.gz", "rt") as file:
        doc_ids = {line.split()[2] for line in file}
    passages = dict(line.split("\t") for line in (FOLDER / "passages.tsv").read_text().splitlines())
    queries = dict(line.split("\t") for line in (FOLDER / "train" / "queries.tsv").read_text().splitlines())
    return list(queries.values()), [passages[doc_id] for doc_id in sorted(doc_ids)]


def train_tokenizer(texts):
    """An uncased WordPiece tokenizer as BERT has it; one that is there is kept.

    Training does not order the vocabulary the same way twice, and the encoder's weights follow that order.
    """
    if (FOLDER / "backbone" / "tokenizer.json").is_file():
        return BertTokenizer.from_pretrained(FOLDER / "backbone", trust_remote_code=False)
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(texts, vocab_size=900, min_frequency=2, show_progress=False)
    tokenizer = BertTokenizer(vocab=pieces.get_vocab(), model_max_length=CONFIG["max_position_embeddings"])
    tokenizer.save_pretrained(FOLDER / "backbone")
    return tokenizer


def find_partners(passages):
    """For each word those that share a passage with it at least MIN_LIFT times as often as chance would have it."""
    counts = Counter(word for passage in passages for word in passage)
    together = Counter(pair for passage in passages for pair in combinations(sorted(passage), 2))
    partners = {word: set() for word in counts}
    for (first, second), count in together.items():
        expected = counts[first] * counts[second] / len(passages)
        if count >= MIN_LIFT * expected and count * math.log(count / expected) >= MIN_EVIDENCE:
            partners[first].add(second)
            partners[second].add(first)
    return partners


@torch.no_grad()
def initialise(encoder, partners):
    """Similar vectors for words that go together, and first-layer heads whose queries and keys are alike."""
    vectors = encoder.embeddings.word_embeddings.weight
    drawn = vectors.clone()
    for word, others in partners.items():
        vectors[word] += 0.7 * drawn[sorted(others)].sum(dim=0)
        vectors[word] *= drawn[word].norm() / vectors[word].norm()
    encoder.embeddings.position_embeddings.weight.mul_(0.1)  # wherever the words stand
    attention = encoder.encoder.layer[0].attention.self
    size = attention.attention_head_size
    for start in range(0, attention.all_head_size, size):
        projection = torch.linalg.qr(torch.randn(attention.all_head_size, attention.all_head_size))[0][:size]
        attention.query.weight[start : start + size] = SHARPNESS**0.5 * projection
        attention.key.weight[start : start + size] = SHARPNESS**0.5 * projection


def pretrain(encoder, tokenizer, partners):
    """Train the encoder to count, with a linear layer on the [CLS] state that is thrown away."""
    head = torch.nn.Linear(CONFIG["hidden_size"], 1)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (STEPS - step) / (STEPS - WARMUP))
    )
    for step in (bar := trange(STEPS, desc="pre-training")):
        pairs, shared = zip(*(draw_bags(partners) for _ in range(BATCH)), strict=True)
        loss = F.mse_loss(score(encoder, head, tokenizer, pairs), torch.tensor(shared).float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix_str(f"loss {loss.item():.3f}")


def draw_bags(partners):
    """A query of random words, a bag that holds some of them or their partners, and how many it holds."""
    words = list(partners)
    query = random.sample(words, random.randint(3, 6))
    held = random.sample(query, random.randint(0, len(query)))
    bag = [random.choice([word, *sorted(partners[word])]) for word in held]
    bag += random.sample(words, random.randint(10, 24))
    random.shuffle(bag)
    return (query, bag), sum(not ({word} | partners[word]).isdisjoint(bag) for word in query)


def score(encoder, head, tokenizer, pairs):
    """Scores of (query, passage) pairs of token ids, from the [CLS] state."""
    cls, sep, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    rows = [([cls, *query, sep], [*passage, sep]) for query, passage in pairs]
    width = max(len(first) + len(second) for first, second in rows)
    tokens = torch.tensor([first + second + [pad] * (width - len(first + second)) for first, second in rows])
    types = torch.tensor([[0] * len(first) + [1] * (width - len(first)) for first, second in rows])
    states = encoder(input_ids=tokens, token_type_ids=types, attention_mask=(tokens != pad).long()).last_hidden_state
    return head(states[:, 0]).squeeze(-1)


if __name__ == "__main__":
    main()
