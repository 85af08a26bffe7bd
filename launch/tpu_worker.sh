#!/usr/bin/env bash
# The far side of launch/tpu_vm.sh: what every worker of a TPU VM does.
#   setup | data BUCKET NAME... | run BUCKET FLAG... | state | stop
set -euo pipefail
cd "$(dirname "$0")/.."

log=$HOME/bitseg.log
pid_file=$HOME/bitseg.pid
exit_file=$HOME/bitseg.exit # there once the run has ended

setup() {
  local python=python3 apt='sudo apt-get -q -o DPkg::Lock::Timeout=600'
  # TPU images are Ubuntu 22.04, whose Python is 3.10.
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    python3 -m pip install -q --user uv
    python3 -m uv python install 3.12
    python=$(python3 -m uv python find 3.12)
  fi
  if ! command -v gcsfuse >/dev/null; then
    curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg |
      sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
    echo 'deb [signed-by=/usr/share/keyrings/cloud.google.asc]' \
      "https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    $apt update
    $apt install -y gcsfuse make
  fi
  make install ACCELERATOR=tpu PYTHON="$python"
}

data() {
  local bucket=$1 name
  shift
  for name in "$@"; do
    mkdir -p "datasets/$name"
    gcloud storage rsync --recursive \
      "gs://$bucket/datasets/$name" "datasets/$name"
  done
}

# Directories are renamed (a checkpoint becomes whole that way), and what one
# worker writes the others read at once, so nothing is cached.
mount_bucket() {
  mkdir -p runs
  mountpoint -q runs || gcsfuse --implicit-dirs --rename-dir-limit=200000 \
    --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 \
    "$1" runs
}

run() {
  local bucket=$1
  shift
  if [[ $(state) == running ]]; then
    echo 'error: a run is going on here; stop it first' >&2
    return 1
  fi
  mount_bucket "$bucket"
  rm -f "$pid_file" "$exit_file"
  nohup bash launch/tpu_worker.sh supervise "$@" >>"$log" 2>&1 </dev/null &
  until [[ -s $pid_file ]]; do sleep 0.1; done
}

supervise() {
  local code=0
  .venv/bin/python -m bitseg_jax.main --distributed "$@" &
  echo $! >"$pid_file"
  wait $! || code=$?
  echo "$code" >"$exit_file"
}

# new, ready, running, lost (the VM restarted under it), or the exit code.
state() {
  if [[ -s $exit_file ]]; then
    cat "$exit_file"
  elif [[ -s $pid_file ]]; then
    if kill -0 "$(cat "$pid_file")" 2>/dev/null; then
      echo running
    else
      echo lost
    fi
  elif [[ -e .venv/installed-tpu ]]; then
    echo ready
  else
    echo new
  fi
}

stop() {
  if [[ $(state) == running ]]; then
    kill -TERM "$(cat "$pid_file")"
  fi
}

"$@"
