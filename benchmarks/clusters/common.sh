# Sourced by the scripts of this folder: one small training, and functions that wait, compare and print.
#
#   PYTHON=.venv/bin/python WORK=outputs/clusters benchmarks/clusters/torchrun.sh
#
# What a script leaves is in $WORK/NAME; a second call begins anew.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
PYTHON=${PYTHON:-$(command -v python)}
PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
WORK=${WORK:-outputs/clusters}/$(basename "$0" .sh)
export OMP_NUM_THREADS=1
trap 'exit 143' TERM INT
TRAINING="train.max_steps=60 train.validate_every=30 train.save_every=2 train.log_every=1 train.batch_size=8
    data.depth=10 validation.depth=10 task.depth=10"

begin() { # an empty folder
    rm -rf "$WORK"
    mkdir -p "$WORK"
    WORK=$(cd "$WORK" && pwd)
    : >"$WORK/table"
}

row() { # WHAT RESULT: a line of the table
    printf '%-42s  %s\n' "$1" "$2" | tee -a "$WORK/table"
}

finish() { # the table once more, without what came between
    printf '\n%s\n' "$("$PYTHON" --version), torch $("$PYTHON" -c 'import importlib.metadata as m; print(m.version("torch"))'), $(date +%F)"
    cat "$WORK/table"
    ! grep -q FAILED "$WORK/table"
}

wait_for() { # SECONDS COMMAND...: until it succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS > end)) && return 1
        sleep 0.2
    done
}

at_step() { # DIRECTORY STEP: whether a training has logged that step
    grep -q "\"step\": $2, \"train/loss\"" "$1/metrics.jsonl"
}

last_step() { # DIRECTORY: of the newest checkpoint
    "$PYTHON" -c 'import sys, torch; print(torch.load(sys.argv[1], weights_only=False)["step"])' "$1/checkpoints/last.pt"
}

family() { # PROCESS...: these, and all that they have started
    local one
    for one in "$@"; do
        echo "$one"
        family $(pgrep -P "$one")
    done
}

kill_all() { # PROCESS...: at once and for good
    kill -9 "$@" 2>/dev/null
}

resumed() { # FILE...: what their logs say of it
    grep -ho 'resumed at step [0-9]*' "$@" | tail -1 | grep . || echo "FAILED: not resumed"
}

same() { # WHAT UNBROKEN RESUMED: a line of the table on whether the two took the same steps
    local answer
    answer=$("$PYTHON" -m benchmarks.clusters.compare "$2" "$3") || answer="FAILED: $answer"
    row "$1" "$answer"
}
