#!/usr/bin/env bash
set -euo pipefail

usage() {
  cat <<'END'
Runs bitseg_jax on GKE, on nodes with GPUs or with a TPU slice.

  launch/gke.sh VERB [--setting=VALUE ...] [--dry_run] [-- FLAGS]

FLAGS are those of `python -m bitseg_jax.main`, with --workdir=runs/NAME: there
runs/ is the bucket. For `array` they are a command and its flags, such as
`predict --checkpoint=runs/mine --input=runs/photos --output=runs/predicted`.
Uses the cluster that kubectl uses.

verbs
  build   builds the image from the committed code, and pushes it
  start   starts the job; after `stop`, the same command goes on
  array   shares prepare, predict, score or sweep among --parts=N pods; with
          --parts=1, once these are done, it joins what they have left
  status  what the job and its pods are doing
  logs    follows the log of one pod
  stop    has the run save, and deletes the job; the bucket stays

settings, also read from the environment variable in brackets
  --name=NAME            of the job, small letters, digits and - [JOB_NAME]
  --image=IMAGE          such as REGION-docker.pkg.dev/PROJECT/REPO/bitseg [IMAGE]
  --bucket=BUCKET        without gs:// [BUCKET]
  --gpu=TYPE:N           such as nvidia-h100-80gb:8, N GPUs a node
  --tpu=TYPE:TOPOLOGY:N  such as tpu-v6e-slice:2x4:8, N chips a node
  --nodes=N              default 1; for a TPU slice all of its nodes
  --parts=N              of array; default 1
  --dataset=NAME         gs://BUCKET/datasets/NAME, to be copied to
                         datasets/NAME of every pod; may be repeated
  --service_account=NAME that may read and write the bucket; default: default
  --spot                 only on spot nodes
  --pod=N                of logs; default 0
  --dry_run              prints every command and the YAML, calls nothing
END
}

name=${JOB_NAME-} image=${IMAGE-} bucket=${BUCKET-}
gpu='' tpu='' nodes=1 service_account=default spot='' pod=0 dry_run=
parts=1 command=main datasets=() flags=()
port=8476

die() {
  local text="error: $*"
  echo "${text//[[:cntrl:]]/?}" >&2
  exit 1
}

call() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

need() {
  local setting
  for setting in "$@"; do
    [[ ${!setting} ]] || die "--$setting is missing; see launch/gke.sh --help"
  done
}

# The flags by which the processes find each other. On TPU nodes GKE tells JAX;
# on others JAX would need a package and rights to ask Kubernetes.
joining() {
  if [[ $command == array ]]; then
    ((parts == 1)) || echo "--shard=\$(JOB_COMPLETION_INDEX)/$parts"
  elif [[ $tpu ]]; then
    echo --distributed
  else
    echo "--coordinator=$name-0.$name:$port"
    echo "--num_processes=$nodes"
    echo "--process_id=\$(JOB_COMPLETION_INDEX)"
  fi
}

yaml() {
  local join=()
  while IFS= read -r flag; do join+=("$flag"); done < <(joining)
  NAME=$name IMAGE=$image BUCKET=$bucket NODES=$nodes GPU=$gpu TPU=$tpu \
    SPOT=$spot SERVICE_ACCOUNT=$service_account \
    DATASETS="${datasets[*]+"${datasets[*]}"}" COMMAND=$command \
    python3 - launch/gke_job.yaml "${#join[@]}" ${join[@]+"${join[@]}"} \
    ${flags[@]+"${flags[@]}"} <<'END'
import json, os, string, sys

template, joining, *args = sys.argv[1:]
set_ = dict(os.environ)
kind, *sizes = (set_['TPU'] or set_['GPU']).split(':')
if not kind:
  selector, devices = {}, {}
elif set_['TPU']:
  selector = {'cloud.google.com/gke-tpu-accelerator': kind,
              'cloud.google.com/gke-tpu-topology': sizes[0]}
  devices = {'google.com/tpu': int(sizes[1])}
else:
  selector = {'cloud.google.com/gke-accelerator': kind}
  devices = {'nvidia.com/gpu': int(sizes[0])}
if set_['SPOT']:
  selector['cloud.google.com/gke-spot'] = 'true'
mounts = [{'name': 'bucket', 'mountPath': '/bitseg_jax/runs'},
          {'name': 'datasets', 'mountPath': '/bitseg_jax/datasets'}]
copies = [
  {'name': f'copy-{i}', 'image': set_['IMAGE'], 'volumeMounts': mounts,
   'command': ['cp', '-r', f'runs/datasets/{name}', 'datasets/']}
  for i, name in enumerate(set_['DATASETS'].split())
]
# Kubernetes would replace $(NAME) in what the user wrote.
args[int(joining):] = [a.replace('$(', '$$(') for a in args[int(joining):]]
module = ['-m', 'bitseg_jax.main']
if set_['COMMAND'] == 'array':
  joined = args[:int(joining)]
  args = [*args[int(joining):], *joined]
  module = ['-m', 'bitseg_jax']
print(string.Template(open(template).read()).substitute(
  set_,
  RETRIES=6 * int(set_['NODES']),
  NODE_SELECTOR=json.dumps(selector),
  DEVICES=json.dumps(devices),
  INIT_CONTAINERS=json.dumps(copies),
  MODULE=json.dumps(['.venv/bin/python', *module]),
  ARGS=json.dumps(args),
), end='')
END
}

build() {
  need image
  local accelerator=cuda
  [[ ! $tpu ]] || accelerator=tpu
  local build=(docker build -f launch/Dockerfile
    --build-arg "ACCELERATOR=$accelerator" -t "$image" -)
  if [[ $dry_run ]]; then
    echo "git archive HEAD | ${build[*]}"
  else
    git archive HEAD | "${build[@]}" || die 'the image could not be built'
  fi
  call docker push "$image"
}

# What goes into YAML and into paths of the bucket is plain.
check_settings() {
  local word path='^[A-Za-z0-9]([A-Za-z0-9._/:@-]*[A-Za-z0-9])?$'
  [[ $name =~ ^[a-z]([a-z0-9-]{0,50}[a-z0-9])?$ ]] ||
    die "--name=$name: give at most 52 small letters, digits and -"
  [[ $nodes =~ ^[1-9][0-9]{0,3}$ ]] || die "--nodes=$nodes: give 1 to 9999"
  for word in "$image" "$bucket" "$service_account" \
    ${datasets[@]+"${datasets[@]}"}; do
    [[ $word =~ $path && $word != *..* ]] ||
      die "$word is no name of an image, a bucket, an account or a dataset"
  done
}

start() {
  need name image bucket
  check_settings
  local flag found=
  for flag in ${flags[@]+"${flags[@]}"}; do
    [[ $flag != --workdir* || $flag != *..* ]] || die "$flag leads out of the bucket"
    [[ $flag != --workdir=runs/?* ]] || found=yes
  done
  [[ $found ]] || die 'give -- --workdir=runs/NAME ...: runs/ is the bucket there'
  check_accelerator
  send
}

check_accelerator() {
  [[ $gpu =~ ^[a-z0-9-]+:[1-9][0-9]{0,2}$ && ! $tpu ||
    $tpu =~ ^[a-z0-9-]+:[0-9x]+:[1-9][0-9]{0,2}$ && ! $gpu ]] ||
    die 'give --gpu=TYPE:N or --tpu=TYPE:TOPOLOGY:N; see launch/gke.sh --help'
}

array() {
  need name image bucket
  case ${flags[0]-} in
    prepare | predict | score | sweep) ;;
    *) die 'give -- prepare, predict, score or sweep, and its flags' ;;
  esac
  [[ $parts == [1-9]* && ! $parts == *[!0-9]* ]] ||
    die "--parts=$parts: give a number from 1 on"
  [[ ! $gpu && ! $tpu ]] || check_accelerator
  command=array nodes=$parts
  send
}

send() {
  local text
  text=$(yaml)
  if [[ $dry_run ]]; then
    echo "kubectl create -f - <<'END'"
    echo "$text"
    echo END
  else
    kubectl create -f - <<<"$text"
  fi
}

status() {
  need name
  call kubectl get "job/$name"
  call kubectl get pods "--selector=job-name=$name"
}

logs() {
  need name
  [[ $pod =~ ^[0-9]+$ ]] || die "--pod=$pod: give a number"
  call kubectl logs --follow --container=bitseg \
    "--selector=job-name=$name,batch.kubernetes.io/job-completion-index=$pod"
}

stop() {
  need name
  call kubectl delete "job/$name" "service/$name"
}

verb=${1---help}
shift || true
while (($#)); do
  case $1 in
    --name=* | --image=* | --bucket=* | --gpu=* | --tpu=* | --nodes=* | --parts=* | \
      --service_account=* | --pod=*)
      setting=${1%%=*}
      printf -v "${setting#--}" %s "${1#*=}"
      ;;
    --dataset=*) datasets+=("${1#*=}") ;;
    --spot) spot=yes ;;
    --dry_run) dry_run=yes ;;
    --)
      shift
      flags=("$@")
      break
      ;;
    *) die "unknown argument $1; see launch/gke.sh --help" ;;
  esac
  shift
done
bucket=${bucket#gs://}
cd "$(dirname "$0")/.."
case $verb in
  build | start | array | status | logs | stop) "$verb" ;;
  -h | --help | help) usage ;;
  *) die "unknown verb $verb; see launch/gke.sh --help" ;;
esac
