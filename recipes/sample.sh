#!/usr/bin/env bash
# Every step on the bundled sample, an invented cookbook: first stage, teacher, students, evaluation, report, export.
# No GPU, no network, no key; four trainings of about half a minute of CPU time each.
#
#   recipes/sample.sh
#   LLM_URL=http://localhost:8000/v1 LLM=NAME recipes/sample.sh        with an LLM as teacher, in place of the simulated one
#
# Run it from the repository, with the environment active. Finished steps are skipped when you run it again, and the one
# that was stopped resumes. Step 5 needs: pip install -r requirements-report.txt -c constraints.txt
set -euo pipefail
cd "$(dirname "$0")/.."
source recipes/steps.sh

LLM_URL=${LLM_URL:-}            # an OpenAI-compatible endpoint; empty: the sample's simulated teacher
LLM=${LLM:-}                    # the model, by the name that the endpoint knows it by
LLM_KEY=${LLM_KEY:-null}        # name of the environment variable with the key, as in LLM_KEY=OPENAI_API_KEY
LOSSES=${LOSSES:-ranknet,adrmse}        # objectives that are compared
SEEDS=${SEEDS:-0,1}             # each objective is trained once with each of these
STEPS=${STEPS:-80}              # of each training
JOBS=${JOBS:-2}                 # trainings side by side
TRAIN=${TRAIN:-}                # further overrides of train.py, as in TRAIN="backbone=tiny-1layer data.depth=50"
PYTHON=${PYTHON:-python}
OUT=${OUT:-outputs/sample-recipe}

# ---------------------------------------------------------------------------------------------------------------------
# 1. First stage: BM25 finds 100 passages for each training query. It sees a third of what makes a passage relevant here.

step "$OUT/first.run" "$PYTHON" -m distill retrieve passages=sample/passages.tsv queries=sample/train/queries.tsv \
    depth=100 output="$OUT/first.run"

# ---------------------------------------------------------------------------------------------------------------------
# 2. Teacher: it puts each list in order. An LLM takes the run of step 1; the simulated teacher has ranked the sample's
#    own first stage, which BM25 made too.

if [[ -n $LLM_URL ]]; then
    step "$OUT/teacher/teacher.run" "$PYTHON" -m distill annotate passages=sample/passages.tsv \
        queries=sample/train/queries.tsv run="$OUT/first.run" depth=25 hydra.run.dir="$OUT/teacher" \
        teacher.llm.base_url="$LLM_URL" teacher.llm.model="$LLM" teacher.llm.api_key_variable="$LLM_KEY"
    teacher=(teacher=run teacher.path="$OUT/teacher/teacher.run" teacher.first_stage="$OUT/first.run")
else
    teacher=(teacher=sample)
fi

# ---------------------------------------------------------------------------------------------------------------------
# 3. Students: a sweep over objectives and seeds. Each job has its own directory and process, so one failure never stops
#    the others; the same command then runs only what is missing.

# shellcheck disable=SC2086  # $TRAIN is several words
"$PYTHON" train.py -m loss="$LOSSES" seed="$SEEDS" train.max_steps="$STEPS" "${teacher[@]}" \
    hydra/launcher=processes hydra.launcher.n_jobs="$JOBS" hydra.sweep.dir="$OUT/students" $TRAIN

# ---------------------------------------------------------------------------------------------------------------------
# 4. Evaluation: the first student re-ranks the test queries' top 20 instead of their top 100.

step "$OUT/top-20/results.json" "$PYTHON" evaluate.py model="$OUT/students/0/model" task=sample task.depth=20 \
    hydra.run.dir="$OUT/top-20"

# ---------------------------------------------------------------------------------------------------------------------
# 5. Report: a page with a row for each objective, mean and deviation over seeds, tested against RankNet.

step "$OUT/report/index.html" "$PYTHON" -m distill report runs="$OUT/students" output="$OUT/report" \
    title="The bundled sample" baseline="loss=${LOSSES%%,*}"

# ---------------------------------------------------------------------------------------------------------------------
# 6. Export: for lightning-ir here. onnx and onnx-int8 need pip install onnx onnxscript onnxruntime.

step "$OUT/lightning-ir" "$PYTHON" -m distill export model="$OUT/students/0/model" format=lightning-ir \
    output="$OUT/lightning-ir"

echo "Done: $OUT/students (the models), $OUT/report/index.html (the comparison), $OUT/lightning-ir (exported)"
