#!/usr/bin/env bash
# Sweeps of two jobs on a Ray cluster of two nodes on this machine: whole; with a node lost in the middle; with the
# command itself lost; and with bad input.
#
#   pip install -r requirements.txt hydra-ray-launcher
#   benchmarks/clusters/ray.sh
#
# The two nodes are two raylets, with one core each.
source "$(dirname "$0")/common.sh"
begin
RAY=$(dirname "$PYTHON")/ray
place=$(mktemp -d /tmp/ray-XXXXXX) # Ray's sockets need a short path
mkdir -p "$place/else/where/on/this/machine"
export RAY_ADDRESS=127.0.0.1:$((20000 + RANDOM % 20000))

start_node() ( # NAME OPTIONS...; not in the repository, as on a machine where it runs all the time
    cd "$place/else/where/on/this/machine" && "$RAY" start "${@:2}" --node-name "$1" --num-cpus 1 --num-gpus 0 --object-store-memory 80000000 \
        --disable-usage-stats >>"$WORK/cluster.log" 2>&1
)

raylet_of() { # NODE
    pgrep -f "$place/.*--node-name=$1( |\$)" | head -1
}

end_cluster() {
    kill_all $(family $(pgrep -f "$place/"))
    rm -rf "$place"
}

sweep() { # NAME OVERRIDES...: in the background, its process in $sweep
    "$PYTHON" train.py -m hydra/launcher=ray-cluster hydra.launcher.ray.remote.num_gpus=0 $TRAINING \
        "hydra.sweep.dir=$(realpath --relative-to . "$WORK/$1")" "${@:2}" >>"$WORK/$1.log" 2>&1 &
    sweep=$!
}

node_of() { # DIRECTORY: the node whose process works there
    local process
    process=$(grep -o '[0-9]*' "$1/run.lock" | head -1)
    for name in n1 n2; do
        family $(raylet_of $name) | grep -qx "$process" && echo $name
    done
}

trap end_cluster EXIT
start_node n1 --head --port "${RAY_ADDRESS#*:}" --include-dashboard=false --temp-dir "$place"
start_node n2 --address "$RAY_ADDRESS"
wait_for 300 sh -c "[ \$('$RAY' status | grep -c '^ 1 node_') = 2 ]" || row "a Ray cluster of two nodes" "FAILED"

# 1. Whole
sweep whole seed=0,1
wait $sweep
row "2 jobs, no node lost" "exit status $?"

# 2. A node disappears that is not the head: Ray starts its job again, which resumes
sweep lost seed=0,1
for job in 0 1; do
    wait_for 900 at_step "$WORK/lost/$job" 7 || row "a node lost" "FAILED: no step 7"
    [[ $(node_of "$WORK/lost/$job") == n2 ]] && break
done
kill_all "$(raylet_of n2)"
wait $sweep
row "a node lost after step 7 of job $job" "exit status $?, $(resumed "$WORK/lost.log")"
same "  job 0 beside the whole sweep's" "$WORK/whole/0" "$WORK/lost/0"
same "  job 1" "$WORK/whole/1" "$WORK/lost/1"

# 3. The node is back, and the command that started the sweep is lost: its jobs end, the same command resumes them
start_node n2 --address "$RAY_ADDRESS"
sweep again seed=0,1
wait_for 900 at_step "$WORK/again/0" 7 || row "the command lost" "FAILED: no step 7"
kill_all $sweep
wait $sweep 2>/dev/null
sleep 10
row "the command lost after step 7" "job 0 has left $(wc -l <"$WORK/again/0/metrics.jsonl") lines, results.json: $(ls "$WORK/again/0/results.json" 2>/dev/null || echo none)"
sweep again seed=0,1
wait $sweep
row "  the same command again" "exit status $?, $(resumed "$WORK/again.log")"
same "  job 0 beside the whole sweep's" "$WORK/whole/0" "$WORK/again/0"
same "  job 1" "$WORK/whole/1" "$WORK/again/1"

# 4. A job with bad input among others
"$PYTHON" evaluate.py -m hydra/launcher=ray-cluster hydra.launcher.ray.remote.num_gpus=0 model=null task.depth=0,20 \
    "hydra.sweep.dir=$WORK/bad" >"$WORK/bad.log" 2>&1
row "a job with bad input, and one without" "exit status $?, $(grep -h '^error: ' "$WORK/bad.log"), other job: $(ls "$WORK/bad/1/results.json" >/dev/null && echo finished)"
finish
