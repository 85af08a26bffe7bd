#!/usr/bin/env bash
set -euo pipefail

usage() {
  cat <<'END'
Runs bitseg_jax on a Cloud TPU VM, of one worker or many.

  launch/tpu_vm.sh VERB [--setting=VALUE ...] [--dry_run] [-- FLAGS]

FLAGS are those of `python -m bitseg_jax.main`, with --workdir=runs/NAME: there
runs/ is the bucket, which outlives the VM.

verbs
  watch    everything below as far as it is needed, until the run has ended; a
           VM that was preempted is made anew, and the run goes on. May itself
           be stopped (Ctrl-C) and started again at any time
  create   asks for the VM and waits until it is there
  setup    copies the committed code to every worker and installs it
  data     copies the datasets from the bucket to every worker
  run      starts the run on every worker, in the background
  status   what the VM and every worker are doing
  logs     follows the log of one worker
  stop     has the run save and end; `run` or `watch` goes on
  delete   deletes the VM; the bucket stays

settings, also read from the environment variable in brackets
  --name=NAME           of the VM [TPU_NAME]
  --zone=ZONE           such as us-east5-b [ZONE]
  --bucket=BUCKET       without gs:// [BUCKET]
  --accelerator=TYPE    such as v6e-8; of several, such as v6e-16,v6e-8, watch
                        takes the first that comes: after a preemption the run
                        goes on with any number of chips [ACCELERATOR_TYPE]
  --patience=MINUTES    to wait for one of several; default 30
  --runtime=VERSION     default: the one of the accelerator [RUNTIME_VERSION]
  --dataset=NAME        gs://BUCKET/datasets/NAME, to be copied to
                        datasets/NAME of every worker; may be repeated
  --project=PROJECT     default: that of gcloud [PROJECT]
  --spot                cheaper, may be preempted
  --worker=N            of logs; default 0
  --poll=SECONDS        between looks; default 60
  --dry_run             prints every command, calls nothing
END
}

name=${TPU_NAME-} zone=${ZONE-} bucket=${BUCKET-} project=${PROJECT-}
accelerator=${ACCELERATOR_TYPE-} runtime=${RUNTIME_VERSION-}
datasets=() spot=() flags=() worker=0 poll=60 patience=30 dry_run=

say() { echo "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# One word of shell for each argument, to be read by another shell.
quoted() {
  local word text=
  for word in "$@"; do
    text+=" $(printf '%q' "$word")"
  done
  echo "${text# }"
}

call() {
  if [[ $dry_run ]]; then
    quoted "$@"
  else
    say "+ $(quoted "$@")"
    "$@"
  fi
}

need() {
  local setting
  for setting in "$@"; do
    [[ ${!setting} ]] || die "--$setting is missing; see launch/tpu_vm.sh --help"
  done
}

gcloud_tpus() { # GROUP VERB ARGUMENT...
  local group=$1 verb=$2
  shift 2
  call gcloud compute tpus "$group" "$verb" "$@" --zone="$zone" \
    ${project:+"--project=$project"} --quiet
}

on_workers() { # WHICH COMMAND
  gcloud_tpus tpu-vm ssh "$name" --worker="$1" --command="$2"
}

far_side() { quoted bash bitseg_jax/launch/tpu_worker.sh "$@"; }

worker_state="$(far_side state) 2>/dev/null || echo new"

# Prints what an object is doing: its state, NONE, or UNKNOWN.
look() { # GROUP FORMAT
  local state errors=$scratch/look
  if state=$(gcloud_tpus "$1" describe "$name" --format="$2" 2>"$errors"); then
    echo "$state"
  elif grep -qiE 'NOT_FOUND|not found' "$errors"; then
    echo NONE
  else
    tail -n 1 "$errors" >&2
    echo UNKNOWN
  fi
}

# none, waiting, ready, gone (preempted, failed) or unknown.
vm_state() {
  case $(look queued-resources 'value(state.state)') in
    NONE) echo none ;;
    UNKNOWN) echo unknown ;;
    FAILED | SUSPENDING | SUSPENDED) echo gone ;;
    ACTIVE)
      # The request may still be active when its VM is gone.
      case $(look tpu-vm 'value(state)') in
        READY) echo ready ;;
        NONE | PREEMPTED | TERMINATED | STOPPED) echo gone ;;
        UNKNOWN) echo unknown ;;
        *) echo waiting ;;
      esac
      ;;
    *) echo waiting ;;
  esac
}

default_runtime() {
  case $1 in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  need name zone accelerator
  local type=${accelerator%%,*} version
  version=${runtime:-$(default_runtime "$type")}
  [[ $version ]] || die "--runtime is missing: none is known for $type"
  gcloud_tpus queued-resources create "$name" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="$version" \
    ${spot[@]+"${spot[@]}"} || {
    say "error: $name could not be asked for, see above"
    return 2
  }
  if [[ $dry_run ]]; then
    echo '# then, until it is READY:'
    look_commands
  else
    wait_until_ready
  fi
}

wait_until_ready() {
  local state began=$SECONDS
  until state=$(vm_state) && [[ $state == ready ]]; do
    if [[ $state == gone ]]; then
      say "error: no VM came of $name; delete it and try another zone"
      return 1
    fi
    if [[ $accelerator == *,* ]] && ((SECONDS - began >= 60 * patience)); then
      say "error: $name did not come in $patience minutes"
      return 1
    fi
    say "$name: $state"
    sleep "$poll"
  done
}

# Asks for the VM; where it does not come, the next of several is due.
create_for_watch() {
  local code=0
  create || code=$?
  ((code)) || return 0
  if [[ $accelerator == *,* ]]; then
    accelerator=${accelerator#*,},${accelerator%%,*}
    say "trying ${accelerator%%,*} now"
    ((code == 2)) || delete || true
  elif ((code == 2)); then
    exit 1
  fi
}

setup() {
  need name zone
  [[ ! $(git status --porcelain) ]] || say 'note: only what is committed is sent'
  local code=${TMPDIR:-/tmp}/$name.tgz
  if ! { call git archive --format=tar.gz --output="$code" HEAD &&
    gcloud_tpus tpu-vm scp "$code" "$name:bitseg_jax.tgz" --worker=all &&
    on_workers all "mkdir -p bitseg_jax && tar -xzf bitseg_jax.tgz \
-C bitseg_jax && $(far_side setup)"; }; then
    say "error: setup failed on a worker of $name, see above"
    return 1
  fi
}

data() {
  need name zone bucket
  [[ ${#datasets[@]} -eq 0 ]] ||
    on_workers all "$(far_side data "$bucket" "${datasets[@]}")" || {
    say "error: a worker of $name could not copy gs://$bucket/datasets"
    return 1
  }
}

run() {
  need name zone bucket
  check_flags
  on_workers all "$(far_side run "$bucket" ${flags[@]+"${flags[@]}"})" || {
    say "error: the run did not start on a worker of $name, see above"
    return 1
  }
}

check_flags() {
  local flag
  for flag in ${flags[@]+"${flags[@]}"}; do
    [[ $flag != --workdir* || $flag != *..* ]] || die "$flag leads out of the bucket"
  done
  for flag in ${flags[@]+"${flags[@]}"}; do
    [[ $flag != --workdir=runs/?* ]] || return 0
  done
  die 'give -- --workdir=runs/NAME ...: runs/ is the bucket there'
}

resume() { data && run; }
start() { setup && resume; }

# Looks after a run on a VM that is there; 0 once it has ended.
look_after() {
  local states errors=$scratch/states
  if ! states=$(on_workers all "$worker_state" 2>"$errors"); then
    say "$name: cannot be reached: $(tail -n 1 "$errors")"
    return 1
  fi
  states=$(echo "$states" | sort -u | xargs)
  case " $states " in
    *' running '*) say "$name: running" ;;
    *' new '*) try start ;;
    # 75: stopped, and saved; 143: stopped where there was nothing to save. Then
    # workers that hear of it later end as those do who lost a partner.
    *' ready '* | *' lost '* | *' 75 '* | *' 143 '*) try resume ;;
    ' 0 ') return 0 ;;
    *) die "the run failed ($states): launch/tpu_vm.sh logs --name=$name" \
      "--zone=$zone tells why; the VM is still there, and costs" ;;
  esac
  return 1
}

# What fails because the VM goes away is tried again.
try() {
  "$@" || [[ $(vm_state) != ready ]] || exit 1
}

watch() {
  need name zone bucket accelerator
  check_flags
  if [[ $dry_run ]]; then
    create
    start
    echo "# then, every $poll s:"
    look_commands
    on_workers all "$worker_state"
    echo '# and once the VM is gone, before all of the above anew:'
    delete
    return
  fi
  local state before=
  while true; do
    state=$(vm_state)
    case $state in
      none) create_for_watch ;;
      gone)
        say "$name is gone; making it anew"
        delete && create_for_watch
        ;;
      ready) if look_after; then break; fi ;;
      *) [[ $state == "$before" ]] || say "$name: $state" ;;
    esac
    before=$state
    sleep "$poll"
  done
  say "the run has ended; its results are in gs://$bucket; the VM still costs:"
  say "launch/tpu_vm.sh delete --name=$name --zone=$zone"
}

look_commands() {
  gcloud_tpus queued-resources describe "$name" --format='value(state.state)'
  gcloud_tpus tpu-vm describe "$name" --format='value(state)'
}

status() {
  need name zone
  if [[ $dry_run ]]; then
    look_commands
    on_workers all "$worker_state"
    return
  fi
  local state
  state=$(vm_state)
  echo "$name: $state"
  [[ $state != ready ]] || on_workers all "$worker_state"
}

logs() {
  need name zone
  on_workers "$worker" 'tail -n 100 -f bitseg.log'
}

stop() {
  need name zone
  on_workers all "$(far_side stop)"
}

delete() {
  need name zone
  gcloud_tpus queued-resources delete "$name" --force
}

verb=${1---help}
shift || true
while (($#)); do
  case $1 in
    --name=* | --zone=* | --bucket=* | --project=* | --accelerator=* | \
      --runtime=* | --worker=* | --poll=* | --patience=*)
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
[[ $poll =~ ^[0-9]+([.][0-9]+)?$ ]] || die "--poll=$poll: give seconds"
[[ $worker =~ ^[0-9]+$ ]] || die "--worker=$worker: give a number"
[[ $name =~ ^([a-z][a-z0-9-]*)?$ ]] ||
  die "--name=$name: give small letters, digits and -"
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
case $verb in
  create | setup | data | run | watch | status | logs | stop | delete) "$verb" ;;
  -h | --help | help) usage ;;
  *) die "unknown verb $verb; see launch/tpu_vm.sh --help" ;;
esac
