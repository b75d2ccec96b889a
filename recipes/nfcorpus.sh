#!/usr/bin/env bash
# NFCorpus: a student of googleq as it is, then trained on NFCorpus's own queries; over BM25 and over a fused first stage.
#
#   recipes/nfcorpus.sh
#
# Run it from the repository, with the environment active and the collection in collections/nfcorpus. Finished steps are
# skipped when you run it again, and the one that was stopped resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
source recipes/steps.sh

MODEL=${MODEL:-googleq-minilm-3}        # the student to start from
PRECISION=${PRECISION:-bfloat16}        # bfloat16 needs AVX512-BF16, AMX or a GPU; else float32
SEEDS=${SEEDS:-0 1 2}
PYTHON=${PYTHON:-python}
DATA=collections/nfcorpus
OUT=outputs/real/nfcorpus     # where conf/experiment/real/nfcorpus.yaml and conf/task/real/nfcorpus.yaml look

mkdir -p $OUT

# 1. First stage: BM25 and a bi-encoder, fused by reciprocal ranks
for split in train dev test; do
    step $OUT/$split.fused.run "$PYTHON" -m distill fuse runs=[$DATA/$split.bm25.run.gz,$DATA/$split.dense.run.gz] \
        depth=100 output=$OUT/$split.fused.run
done
print_to $OUT/queries.dev100.tsv sed -n 1,100p $DATA/queries.dev.tsv

# 2. The student as it is
step $OUT/untuned/results.json "$PYTHON" evaluate.py model="$MODEL" task=real/nfcorpus task.interpolate=auto \
    task.ideal=true precision="$PRECISION" hydra.run.dir=$OUT/untuned

# 3. The student, trained on graded labels
for seed in $SEEDS; do
    step $OUT/labels/"$seed"/results.json "$PYTHON" train.py experiment=real/nfcorpus backbone.name="$MODEL" seed="$seed" \
        task.interpolate=auto train.precision="$PRECISION" hydra.run.dir=$OUT/labels/"$seed"
done

# 4. Report
"$PYTHON" -m distill report runs=$OUT output=$OUT/report baseline=first_stage published=false
