#!/usr/bin/env bash
# All that is worth knowing of a GPU at hand, in pieces of under 10 minutes:
#
#   benchmarks/gpu.sh OUTPUT [check] [bench] [profile] [train] [table]
#
# Run the same command to resume: a piece that is done is passed over, and
# training continues. Without pieces it does all but `train`, which
# takes TRAIN_SECONDS each time it is named and packs its OUTPUT/weights.
# These can be set in the environment:
#   PYTHON         python3          with jax for CUDA and the package's needs
#   PLATFORMS      cuda,cpu         what JAX looks for; cpu tries the script out
#   CONFIG         main             config to measure
#   BATCHES        "8 64 256"       batches to measure
#   VARIANTS       "float32 bfloat16"   dtypes to measure
#   BENCH_FLAGS    ""               more flags of bitseg benchmark
#   TRAIN_FLAGS    the photo model  flags of bitseg train
#   TRAIN_SECONDS  480              time of a piece of training
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -eq 0 ]; then
  sed -n '2,18s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi

out=$1
shift
python=${PYTHON:-python3}
config=${CONFIG:-main}
batches=${BATCHES:-8 64 256}
export JAX_PLATFORMS=${PLATFORMS:-cuda,cpu} PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}
export JAX_COMPILATION_CACHE_DIR=$out/compiled
mkdir -p "$out"

# done_once NAME COMMAND...: runs the command unless it ended well before.
done_once() {
  local name=$1
  shift
  [ -e "$out/$name.done" ] && return
  echo "== $name"
  "$@" 2>&1 | tee "$out/$name.log"
  touch "$out/$name.done"
}

benchmark() {
  # shellcheck disable=SC2086  # several flags
  "$python" -m bitseg_jax benchmark --what=train,sample --config="$config" \
    "$@" ${BENCH_FLAGS:-}
}

check() {
  done_once check "$python" benchmarks/check_device.py
}

# measure BATCH VARIANT, compared with the same batch in float32.
measure() {
  local batch=$1 name=$1-$2 dtype=$2 old=$out/$1-float32.json
  set --
  if [ "$name" != "$batch-float32" ] && [ -e "$old" ]; then
    set -- "$@" --compare="$old"
  fi
  done_once "$name" benchmark --config.train.batch_size="$batch" \
    --config.eval.batch_size="$batch" --config.model.dtype="$dtype" \
    --output="$out/$name.json" "$@"
}

bench() {
  local batch variant
  for batch in $batches; do
    for variant in ${VARIANTS:-float32 bfloat16}; do
      measure "$batch" "$variant"
    done
  done
}

profile() {
  local batch=${batches##* }
  done_once profile benchmark --config.model.dtype=bfloat16 \
    --config.train.batch_size="$batch" --config.eval.batch_size="$batch" \
    --profile="$out/trace"
}

train() {
  local default="--config=photos --config.init_from=photos \
    --config.model.dtype=bfloat16 --config.train.batch_size=256 \
    --config.train.num_steps=100000"
  echo "== train"
  # It saves at SIGTERM (143) and goes on from there the next time.
  # shellcheck disable=SC2086  # several flags
  timeout -s TERM "${TRAIN_SECONDS:-480}" "$python" -m bitseg_jax train \
    ${TRAIN_FLAGS:-$default} --workdir="$out/photos" --mode=train 2>&1 |
    tee -a "$out/train.log" || [ "${PIPESTATUS[0]}" -eq 124 ]
  # Small enough to be taken along from a machine that is lent for minutes.
  "$python" -m bitseg_jax convert --input="$out/photos" \
    --output="$out/weights" --dtype=bfloat16
}

table() {
  local name
  printf '\n%-20s %14s %16s\n' 'batch-dtype' 'train images/s' 'guided samples/s'
  for name in "$out"/*-{float32,bfloat16}.json; do
    [ -e "$name" ] || continue
    "$python" - "$name" <<'EOF'
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
rate = {name: value for name, value, _ in json.loads(path.read_text())['rows']}
trained, sampled = rate['train: images'], rate['sample: samples']
print(f'{path.stem:20} {trained:14.1f} {sampled:16.2f}')
EOF
  done
  grep -hs "(at most" "$out/check.log" || true
}

[ $# -gt 0 ] || set -- check bench profile table
for piece in "$@"; do
  case $piece in
    check | bench | profile | train | table) "$piece" ;;
    *)
      echo "error: no piece '$piece'; choose check, bench, profile, train," \
        "table" >&2
      exit 2
      ;;
  esac
done
