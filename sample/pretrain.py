"""Pre-train the sample's tiny encoder on the text of its training split: python sample/pretrain.py

Real cross-encoders start from an encoder that already knows words; this one learns two things from unlabelled text:

- which words two texts share: count the words of a random query in a bag of random words;
- which words go together (the inverse cloze task of Lee et al. 2019): take a few words of a passage as query, and tell
  the rest of it from another passage. Passages say some things twice in other words, so that this teaches synonyms.

Queries and passages of the validation and test splits, rankings and labels are not read. The first layer starts with
heads that look for the same word elsewhere (after the mimetic initialisation of Trockman and Kolter 2023), without
which counting takes ten times as many steps. Writes sample/backbone/, weights in half precision; about five minutes on
two cores.
"""

import gzip
import random
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer
from tqdm import trange
from transformers import BertConfig, BertModel, BertTokenizer

FOLDER = Path(__file__).resolve().parent
SEED = 0
STEPS, WARMUP, LR = 1000, 50, 2e-3
BATCH = 128  # pairs of each task in a step
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
    look_for_the_same_word(encoder)
    pretrain(encoder, tokenizer, passages)
    encoder.half().save_pretrained(FOLDER / "backbone")
    tokenizer.save_pretrained(FOLDER / "backbone")


def read_training_text():
    """The texts of the training queries, and of the passages that were retrieved for them."""
    with gzip.open(FOLDER / "train" / "first_stage.run.gz", "rt") as file:
        doc_ids = {line.split()[2] for line in file}
    passages = dict(line.split("\t") for line in (FOLDER / "passages.tsv").read_text().splitlines())
    queries = dict(line.split("\t") for line in (FOLDER / "train" / "queries.tsv").read_text().splitlines())
    return list(queries.values()), [passages[doc_id] for doc_id in sorted(doc_ids)]


def train_tokenizer(texts):
    """An uncased WordPiece tokenizer as BERT has it."""
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(texts, vocab_size=600, min_frequency=2, show_progress=False)
    return BertTokenizer(vocab=pieces.get_vocab(), model_max_length=CONFIG["max_position_embeddings"])


@torch.no_grad()
def look_for_the_same_word(encoder):
    """Give queries and keys of the first layer the same random projections: equal words attend to each other."""
    encoder.embeddings.position_embeddings.weight.mul_(0.1)  # wherever they stand
    attention = encoder.encoder.layer[0].attention.self
    size = attention.attention_head_size
    for start in range(0, attention.all_head_size, size):
        projection = torch.linalg.qr(torch.randn(attention.all_head_size, attention.all_head_size))[0][:size]
        attention.query.weight[start : start + size] = SHARPNESS**0.5 * projection
        attention.key.weight[start : start + size] = SHARPNESS**0.5 * projection


def pretrain(encoder, tokenizer, passages):
    """Train the encoder on both tasks at once, each with a linear layer of its own that is thrown away."""
    passages = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in passages]
    frequency = Counter(token for passage in passages for token in set(passage))
    count_head, cloze_head = (torch.nn.Linear(CONFIG["hidden_size"], 1) for _ in range(2))
    parameters = [*encoder.parameters(), *count_head.parameters(), *cloze_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (STEPS - step) / (STEPS - WARMUP))
    )
    for step in (bar := trange(STEPS, desc="pre-training")):
        pairs, shared = zip(*(draw_bags(list(frequency)) for _ in range(BATCH)), strict=True)
        count_loss = F.mse_loss(score(encoder, count_head, tokenizer, pairs), torch.tensor(shared).float())
        pairs = [pair for _ in range(BATCH // 2) for pair in draw_cloze(passages, frequency)]
        scores = score(encoder, cloze_head, tokenizer, pairs).view(-1, 2)
        cloze_loss = F.softplus(scores[:, 1] - scores[:, 0]).mean()
        optimizer.zero_grad()
        (count_loss + cloze_loss).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix_str(f"count {count_loss.item():.3f} cloze {cloze_loss.item():.3f}")


def draw_bags(vocabulary):
    """A query of random words, a bag that holds some of them, and how many."""
    query = random.sample(vocabulary, random.randint(3, 6))
    bag = random.sample(query, random.randint(0, len(query))) + random.sample(vocabulary, random.randint(8, 16))
    random.shuffle(bag)
    return (query, bag), len(set(query) & set(bag))


def draw_cloze(passages, frequency):
    """Two pairs of one query, a few words of a passage: with the rest of it, and with the rest of another passage."""
    (words, rest), (_, other_rest) = (take_words(passage, frequency) for passage in random.sample(passages, 2))
    return (words, rest), (words, other_rest)


def take_words(passage, frequency):
    """Some words of a passage, rare ones first and foremost, and the passage without them."""
    words = sorted(set(passage), key=lambda token: random.random() ** frequency[token])[-random.randint(2, 5) :]
    return words, [token for token in passage if token not in words]


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
