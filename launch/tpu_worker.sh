#!/usr/bin/env bash
# The far side of launch/tpu_vm.sh: what every worker of a TPU VM does.
#   setup | data BUCKET NAME... | run BUCKET FLAG... | state | stop | logs
set -euo pipefail
cd "$(dirname "$0")/.."
log=$HOME/bitseg.log pid=$HOME/bitseg.pid code=$HOME/bitseg.exit

setup() {
  local python=python3 apt='sudo apt-get -q -o DPkg::Lock::Timeout=600'
  # TPU images are Ubuntu 22.04, whose Python is 3.10.
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    python3 -m pip install -q --user uv
    python3 -m uv python install 3.12
    python=$(python3 -m uv python find 3.12)
  fi
  if ! command -v gcsfuse >/dev/null; then
    local keys=https://packages.cloud.google.com/apt lists=/etc/apt/sources.list.d
    curl -fsS $keys/doc/apt-key.gpg |
      sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
    echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] $keys" \
      "gcsfuse-$(lsb_release -cs) main" | sudo tee $lists/gcsfuse.list >/dev/null
    $apt update
    $apt install -y gcsfuse make
  fi
  make install-train ACCELERATOR=tpu PYTHON="$python"
}

data() {
  local bucket=$1 name
  for name in "${@:2}"; do
    mkdir -p "datasets/$name"
    gcloud storage rsync --recursive "gs://$bucket/datasets/$name" "datasets/$name"
  done
}

run() {
  [[ $(state) != running ]] || { echo 'error: a run is going on here' >&2; return 1; }
  mkdir -p runs
  # Directories are renamed (a checkpoint becomes whole that way), and what one
  # worker writes the others read at once, so nothing is cached.
  mountpoint -q runs || gcsfuse --implicit-dirs --rename-dir-limit=200000 \
    --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$1" runs
  rm -f "$pid" "$code"
  nohup bash launch/tpu_worker.sh supervise "${@:2}" >>"$log" 2>&1 </dev/null &
  until [[ -s $pid ]]; do sleep 0.1; done
}

supervise() {
  local ended=0
  .venv/bin/python -m bitseg_jax.main --distributed "$@" &
  echo $! >"$pid"
  wait $! || ended=$?
  echo "$ended" >"$code"
}

state() { # new, ready, running, lost (the VM restarted), or the exit code
  if [[ -s $code ]]; then
    cat "$code"
  elif [[ -s $pid ]]; then
    kill -0 "$(cat "$pid")" 2>/dev/null && echo running || echo lost
  else
    [[ -e .venv/installed-tpu ]] && echo ready || echo new
  fi
}

stop() { [[ $(state) != running ]] || kill -TERM "$(cat "$pid")"; }
logs() { tail -n 100 -f "$log"; }

"$@"
