#!/usr/bin/env bash
# One HF Job: a vLLM server and kun-build beside it. Recipe, inputs, run folder and journal are in a bucket, from which
# they come at the start and to which they go at the end, so that the next job goes on.
#
#   hf buckets sync . hf://buckets/my-org/kun --include recipe.yaml --include 'data/*' --include hf-job.sh
#   hf jobs run --flavor a100-large --timeout 12h --secrets HF_TOKEN \
#     -e KUN_BUCKET=my-org/kun -e KUN_MODEL=Qwen/Qwen3-8B -v hf://buckets/my-org/kun:/mnt:ro \
#     vllm/vllm-openai bash /mnt/hf-job.sh recipe.yaml --push-to-hub my-org/my-kun
#
# The recipe says `journal: journal`, so that the answers are in the bucket too.
set -euo pipefail
: "${KUN_BUCKET:?the bucket, as organization/name}"
: "${KUN_MODEL:?the model to serve}"

command -v kun-build > /dev/null || pip install --quiet kun-builder
mkdir -p "${KUN_WORK:=$(mktemp -d)}"
cd "$KUN_WORK"
hf buckets sync "hf://buckets/$KUN_BUCKET" .

port=${KUN_PORT:-8000}
vllm serve "$KUN_MODEL" --port "$port" --enable-prefix-caching &
server=$!
trap 'kill "$server" 2> /dev/null || true' EXIT
until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health"; do
    kill -0 "$server"
    sleep 2
done

code=0
kun-build "$@" --endpoint "http://127.0.0.1:$port" --time-limit "${KUN_TIME_LIMIT:-11h30m}" || code=$?
hf buckets sync . "hf://buckets/$KUN_BUCKET"
exit "$code"
