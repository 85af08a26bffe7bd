#!/usr/bin/env bash
# Runs bitseg_jax on a Cloud TPU VM, of one worker or many:
#
#   launch/tpu_vm.sh VERB --name=NAME --zone=ZONE [--setting=VALUE ...] [-- FLAGS]
#
# FLAGS are those of `python -m bitseg_jax.main`, with --workdir=runs/NAME: there
# runs/ is the bucket, which outlives the VM.
#
#   watch   all that is needed until the run has ended: creates the VM, sets it
#           up, starts the run, and makes a VM that was preempted anew. It may
#           be stopped (Ctrl-C) and started again at any time
#   create  asks for the VM        data    copies the datasets to every worker
#   setup   installs this commit   run     starts the run on every worker
#   status  what VM and run do     logs    follows the log of one worker
#   stop    has the run save       delete  deletes the VM; the bucket stays
#
#   --name=NAME, --zone=ZONE   of the VM, such as mine and us-east5-b
#   --bucket=BUCKET            with the runs, and the datasets under datasets/
#   --accelerator=TYPE         such as v6e-8
#   --runtime=VERSION          default: that of v6e, v5p, v5litepod, v4
#   --dataset=NAME             gs://BUCKET/datasets/NAME; may be repeated
#   --spot                     cheaper, may be preempted
#   --worker=N                 of logs; default 0
#   --poll=SECONDS             between looks of watch; default 60
#   --dry_run                  prints the commands and calls none
set -euo pipefail

name='' zone='' bucket='' accelerator='' runtime='' worker=0 poll=60 dry_run=''
datasets=() spot=() flags=()

die() {
  echo "error: $*" >&2
  exit 1
}

# One word of shell for each argument, to be read by another shell.
quoted() {
  local text
  text=$(printf ' %q' "$@")
  echo "${text# }"
}

tpus() { # GROUP VERB ARGUMENT...
  local command=(gcloud compute tpus "$@" --zone="$zone" --quiet)
  if [[ $dry_run ]]; then
    quoted "${command[@]}"
  else
    "${command[@]}"
  fi
}

workers() { # WHICH ARGUMENT...: what tpu_worker.sh does there
  local which=$1
  shift
  tpus tpu-vm ssh "$name" --worker="$which" \
    --command="$(quoted bash bitseg_jax/launch/tpu_worker.sh "$@")"
}

need() {
  local setting
  for setting in name zone "$@"; do
    [[ ${!setting} ]] || die "--$setting is missing; see launch/tpu_vm.sh --help"
  done
}

# What an object is doing: its state, NONE, or UNKNOWN where nobody answers.
look() { # GROUP FORMAT
  local said
  if said=$(tpus "$1" describe "$name" --format="$2" 2>&1); then
    echo "$said"
  elif [[ $said =~ NOT_FOUND|not\ found ]]; then
    echo NONE
  else
    echo UNKNOWN
  fi
}

vm_state() { # none, ready, gone (preempted or failed), or waiting
  case $(look queued-resources 'value(state.state)') in
    NONE) echo none ;;
    FAILED | SUSPENDING | SUSPENDED) echo gone ;;
    ACTIVE)
      # The request may still be active when its VM is gone.
      case $(look tpu-vm 'value(state)') in
        READY) echo ready ;;
        NONE | PREEMPTED | TERMINATED | STOPPED) echo gone ;;
        *) echo waiting ;;
      esac
      ;;
    *) echo waiting ;;
  esac
}

create() {
  need accelerator
  case $accelerator in
    v6e-*) runtime=${runtime:-v2-alpha-tpuv6e} ;;
    v5p-*) runtime=${runtime:-v2-alpha-tpuv5} ;;
    v5litepod-*) runtime=${runtime:-v2-alpha-tpuv5-lite} ;;
    v4-*) runtime=${runtime:-tpu-ubuntu2204-base} ;;
  esac
  [[ $runtime ]] || die "--runtime is missing: none is known for $accelerator"
  tpus queued-resources create "$name" --node-id="$name" ${spot[@]+"${spot[@]}"} \
    --accelerator-type="$accelerator" --runtime-version="$runtime"
}

setup() {
  need
  local code=${TMPDIR:-/tmp}/$name.tgz unpack='mkdir -p bitseg_jax'
  unpack+=' && tar -xzf bitseg_jax.tgz -C bitseg_jax'
  [[ $dry_run ]] || git archive --format=tar.gz --output="$code" HEAD
  tpus tpu-vm scp "$code" "$name:bitseg_jax.tgz" --worker=all &&
    tpus tpu-vm ssh "$name" --worker=all --command="$unpack" &&
    workers all setup
}

data() {
  need bucket
  ((${#datasets[@]} == 0)) || workers all data "$bucket" "${datasets[@]}"
}

check_flags() {
  local all=" ${flags[*]-}"
  [[ $all == *' --workdir=runs/'* && $all != *' --workdir='*..* ]] ||
    die 'give -- --workdir=runs/NAME ...: runs/ is the bucket there'
}

run() {
  need bucket
  check_flags
  workers all run "$bucket" "${flags[@]}"
}

states() { # of all workers, see tpu_worker.sh
  local state='bash bitseg_jax/launch/tpu_worker.sh state 2>/dev/null || echo new'
  tpus tpu-vm ssh "$name" --worker=all --command="$state"
}

# Looks after a run on a VM that is there; 0 once it has ended.
look_after() {
  local states
  states=$(states 2>/dev/null) || return 1 # not to be reached
  states=$(sort -u <<<"$states" | xargs)
  case " $states " in
    *' running '*) return 1 ;;
    *' new '*) try setup && try data && try run ;;
    # 75: stopped, and saved; 143: stopped where there was nothing to save. Then
    # workers that hear of it later end as those do who lost a partner.
    *' ready '* | *' lost '* | *' 75 '* | *' 143 '*) try data && try run ;;
    ' 0 ') return 0 ;;
    *) die "the run failed ($states): launch/tpu_vm.sh logs --name=$name" \
      "--zone=$zone tells why; the VM is still there, and costs" ;;
  esac
  return 1
}

# What fails because the VM goes away is tried again.
try() {
  "$@" || [[ $(vm_state) != ready ]] ||
    die "$1 failed on a worker of $name, see above"
}

watch() {
  need bucket accelerator
  check_flags
  [[ $poll =~ ^[0-9]+([.][0-9]+)?$ ]] || die "--poll=$poll: give seconds"
  if [[ $dry_run ]]; then
    create && setup && data && run
    return
  fi
  local state before=
  while true; do
    state=$(vm_state)
    [[ $state == "$before" ]] || echo "$name: $state" >&2
    case $state in
      none) create || die "$name could not be asked for, see above" ;;
      gone) delete ;;
      ready) if look_after; then break; fi ;;
    esac
    before=$state
    sleep "$poll"
  done
  echo "the run has ended; its results are in gs://$bucket; the VM still costs:
launch/tpu_vm.sh delete --name=$name --zone=$zone" >&2
}

status() {
  need
  look queued-resources 'value(state.state)'
  states
}

logs() {
  need
  workers "$worker" logs
}

stop() {
  need
  workers all stop
}

delete() {
  need
  tpus queued-resources delete "$name" --force
}

verb=${1---help}
shift || true
while (($#)); do
  case $1 in
    --name=* | --zone=* | --bucket=* | --accelerator=* | --runtime=* | \
      --worker=* | --poll=*)
      setting=${1%%=*}
      printf -v "${setting#--}" %s "${1#*=}"
      ;;
    --dataset=*) datasets+=("${1#*=}") ;;
    --spot) spot=(--spot) ;;
    --dry_run) dry_run=yes ;;
    --)
      shift
      flags=("$@")
      break
      ;;
    *) die "unknown argument $1; see launch/tpu_vm.sh --help" ;;
  esac
  shift
done
bucket=${bucket#gs://}
cd "$(dirname "$0")/.."
case $verb in
  create | setup | data | run | watch | status | logs | stop | delete) "$verb" ;;
  --help) sed -n '2,/^set/s/^# \{0,1\}//p' launch/tpu_vm.sh ;;
  *) die "unknown verb $verb; see launch/tpu_vm.sh --help" ;;
esac
