#!/usr/bin/env bash
# One training on two "nodes" of torchrun on this machine: whole; with a node lost in the middle, repeated by the user;
# and elastic, where the node that is left continues by itself and takes the other one in when it is back.
#
#   pip install -r requirements.txt
#   benchmarks/clusters/torchrun.sh
#
# A node here is an agent of torchrun with one process on the CPU. The first one has the rendezvous; the other is lost.
source "$(dirname "$0")/common.sh"
begin

node() { # NUMBER NNODES PORT DIRECTORY LOG OPTIONS...: start a node; its agent is then $node
    "$PYTHON" -m torch.distributed.run --nnodes "$2" --nproc-per-node 1 --rdzv-backend c10d \
        --rdzv-endpoint "127.0.0.1:$3" --rdzv-id "$3" --rdzv-conf "is_host=$((1 - $1))" "${@:6}" \
        train.py $TRAINING $more "hydra.run.dir=$4" >>"$5" 2>&1 &
    node=$!
}

lost() { # AGENT: a node disappears, its agent and its process at once
    kill_all $(family "$1")
    wait "$1" 2>/dev/null
}

more=
port=$((20000 + RANDOM % 20000))

# 1. Whole
node 0 2 $port "$WORK/whole" "$WORK/whole-0.log"; first=$node
node 1 2 $port "$WORK/whole" "$WORK/whole-1.log"; second=$node
wait $first; status=$?
wait $second
row "2 nodes, none lost" "exit status $status"

# 2. A fixed number of nodes: what is left ends, the same commands resume
((port++))
node 0 2 $port "$WORK/fixed" "$WORK/fixed-0.log"; first=$node
node 1 2 $port "$WORK/fixed" "$WORK/fixed-1.log"; second=$node
wait_for 900 at_step "$WORK/fixed" 7 || row "a node lost" "FAILED: no step 7"
lost $second
wait $first; status=$?
row "--nnodes 2, a node lost after step 7" "the other ends, exit status $status: $(grep -h '^error: ' "$WORK/fixed-0.log" | tail -1 | cut -c1-60)..."
row "  newest checkpoint" "step $(last_step "$WORK/fixed")"
((port++))
node 0 2 $port "$WORK/fixed" "$WORK/fixed-0.log"; first=$node
node 1 2 $port "$WORK/fixed" "$WORK/fixed-1.log"; second=$node
wait $first; status=$?
wait $second
row "  the same commands again" "exit status $status, $(resumed "$WORK/fixed-0.log")"
same "  beside the run that lost none" "$WORK/whole" "$WORK/fixed"

# 3. Elastic: the node that is left restarts its process, and does so again when the other is back
((port++))
more=train.max_steps=150
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # torch 2.13 would not tell the node that comes back where the first one is
node 0 1:2 $port "$WORK/elastic" "$WORK/elastic-0.log" --max-restarts 3; first=$node
node 1 1:2 $port "$WORK/elastic" "$WORK/elastic-1.log" --max-restarts 3; second=$node
wait_for 900 at_step "$WORK/elastic" 7 || row "a node lost" "FAILED: no step 7"
lost $second
wait_for 900 grep -q "resumed at" "$WORK/elastic-0.log"
row "--nnodes 1:2, a node lost after step 7" "the other continues: $(resumed "$WORK/elastic-0.log")"
node 1 1:2 $port "$WORK/elastic" "$WORK/elastic-1.log" --max-restarts 3; second=$node
wait $first; status=$?
wait $second
row "  the node is back" "$(grep -c '2 ranks' "$WORK/elastic-0.log") starts with 2 ranks, $(resumed "$WORK/elastic-0.log"), exit status $status"
finish
