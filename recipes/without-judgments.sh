#!/usr/bin/env bash
# Is a verdict without judgments right? NFCorpus, its own training queries as a log, a fused teacher, no judgments; then
# the same student on the judgments of the test queries.
#
#   ENCODER=collections/all-MiniLM-L6-v2 recipes/without-judgments.sh
#
# Needs collections/nfcorpus: corpus.jsonl.gz, queries.train.tsv, queries.test.tsv and qrels.test.tsv.gz, as BEIR
# distributes them. ENCODER is a bi-encoder. Run again, it skips what is done. docs/results.md has the figures.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}
ENCODER=${ENCODER:?a bi-encoder, as in ENCODER=sentence-transformers/all-MiniLM-L6-v2}
OUT=${OUT:-outputs/without-judgments}
DATA=collections/nfcorpus
NUM=${NUM:-400}                 # queries of the log
export PYTHON ENCODER OUT
export PASSAGES=$DATA/corpus.jsonl.gz LOGGED=$OUT/log.tsv CROSS_ENCODER=googleq-minilm-3 BACKBONE=googleq-minilm-3
export DEPTH=15 HELDOUT=0.2 STEMMER=porter EXPORT='' EVALUATE='precision=bfloat16 task.depth=15'
export TRAIN=${TRAIN:-train.precision=bfloat16 model.passage_length=128 data.list_size=8 train.max_steps=60 train.batch_size=8 backbone.lr=1e-4}

SAMPLE='import random, sys
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
random.Random(0).shuffle(lines)
open(sys.argv[3], "w", encoding="utf-8").write("\n".join(lines[: int(sys.argv[2])]) + "\n")'

mkdir -p "$OUT"
[[ -e $LOGGED ]] || "$PYTHON" -c "$SAMPLE" $DATA/queries.train.tsv "$NUM" "$LOGGED"

# Without judgments: the verdict is by agreement with the teacher on held-out queries
[[ -e $OUT/without.md ]] || { recipes/own-corpus.sh; cp "$OUT/verdict.md" "$OUT/without.md"; }

# With them: the first stage's top 15 of the test queries, re-ranked
TEST_QUERIES=$DATA/queries.test.tsv QRELS=$DATA/qrels.test.tsv.gz recipes/own-corpus.sh

echo "Without judgments:"
cat "$OUT/without.md"
echo "With judgments:"
cat "$OUT/verdict.md"
