#!/usr/bin/env bash
# On a machine with one NVIDIA GPU, Python 3.12, jax and torch for CUDA, and no network: all that is to be known
# there, in nine minutes.
#
#   benchmarks/accelerator.sh OUT [PART ...]      parts: tests sampling precision memory profile train; by default all
#
# OUT gets report.md, results.jsonl (a line as soon as it is known) and log.txt, and of `train` the model, which
# `cat OUT/model.tar.* | tar x` puts together. The exit code is 1 where a part failed. A second call adds to what is
# there. Beforehand, where there is a network, what that machine lacks goes to .whl, and photographs to .data:
#
#   pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 -d .whl \
#     diffusers==0.42.1 importlib_metadata==10.2.0 lazy-importer==0.1.0 platformdirs==4.14.8
#   python -m benchmarks.accelerator.pack PHOTOS.npz .data/photos.npz
#
# The environment: PYTHON; WHEELS (.whl); MINUTES (9); ACCELERATOR_ONLY (a regular expression: which contestants of
# `sampling`); and for `train`, which is left out where there are no images,
# ACCELERATOR_IMAGES (.data/photos.npz), ACCELERATOR_RUN (a folder, where a second call goes on), ACCELERATOR_TRAIN
# (options of `jaxdiff train`: on another machine the second call has --init with the model of the first),
# ACCELERATOR_TRAIN_SECONDS (of all calls together, by which the steps are planned).
# ACCELERATOR_DRY=1 takes the same path on a CPU in about four minutes, with tiny networks; a test runs it.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?name the folder for the results}")
shift
parts=" ${*:-tests sampling precision memory profile train} "
python=${PYTHON:-python3}
wheels=${WHEELS:-.whl}
scratch=${TMPDIR:-/tmp}/jaxdiff-accelerator # kept for a second call: compiled programs, the run
failed=0 slack=1

export ACCELERATOR_IMAGES=${ACCELERATOR_IMAGES:-.data/photos.npz}
export ACCELERATOR_TRAIN=${ACCELERATOR_TRAIN---crop --config convolutional}
if [ "${ACCELERATOR_DRY:-}" ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES='' ACCELERATOR_BACKEND=eager
  export ACCELERATOR_IMAGES=jaxdiff/assets/faces ACCELERATOR_TRAIN=
  slack=8 # limits are a GPU's
else
  unset ACCELERATOR_DRY
fi
export ACCELERATOR_SCRATCH=$scratch ACCELERATOR_RUN=${ACCELERATOR_RUN:-$scratch/run}
export PYTHONPATH=$PWD:$scratch/site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
export JAX_COMPILATION_CACHE_DIR=$scratch/jax JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export TORCHINDUCTOR_CACHE_DIR=$scratch/inductor
mkdir -p "$out" "$scratch"
end=$((SECONDS + slack * (${MINUTES:-9} * 60 - 15)))

if compgen -G "$wheels/*.whl" >/dev/null && [ ! -d "$scratch/site" ]; then
  "$python" -m pip install -q --no-index --no-deps --target "$scratch/site" "$wheels"/*.whl || exit 1
fi
{
  echo "== $(date -u +%F), $(git rev-parse --short HEAD 2>/dev/null), parts$parts"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  "$python" -c 'import diffusers, flax, jax, torch
print(jax.__version__, jax.devices(), flax.__version__, torch.__version__, torch.cuda.is_available(), diffusers.__version__)'
} >>"$out/log.txt" 2>&1 &

part() { # its name, its limit in seconds, or less where less is left; and how it is stopped
  local limit=$((slack * $2 < end - SECONDS ? slack * $2 : end - SECONDS)) status=0
  [ $limit -gt 10 ] || { echo "$1: no time left" | tee -a "$out/log.txt"; return 1; }
  timeout -s "${3:-TERM}" -k 45 "$limit" "$python" -m benchmarks.accelerator "$1" "$out" "$limit" \
    >"$scratch/$1.log" 2>&1 || status=$?
  { echo "== $1: exit code $status, limit $limit s"; tail -c 1000000 "$scratch/$1.log"; } >>"$out/log.txt"
  "$python" -m benchmarks.accelerator report "$out" >"$scratch/$1.md" && cp "$scratch/$1.md" "$out/report.md"
  [ $status -eq 0 ] || echo "$1: exit code $status, limit $limit s (124: it ran out)"
  return $status
}
wants() { [[ $parts == *" $1 "* ]]; }

# sampling prepares beside the tests, whose time no one measures, and waits for the lock that they hold.
exec 9>"$scratch/lock"
flock 9
if wants sampling; then
  part sampling 330 9>&- &
  sampling=$!
fi
if wants tests; then part tests 130 9>&- || failed=1; fi
flock -u 9
if wants sampling; then wait "$sampling" || failed=1; fi
if wants precision; then part precision 60 || failed=1; fi
if wants memory; then part memory 75 || failed=1; fi
if wants profile; then part profile 40 || failed=1; fi
if wants train && [ -e "$ACCELERATOR_IMAGES" ]; then
  end=$((end - 45)) # to write what there is
  part train 600 INT
  [ $? -eq 0 ] || [ $? -eq 124 ] || failed=1
  model=$scratch/model
  if "$python" -m jaxdiff.cli convert "$ACCELERATOR_RUN/model" "$model" --dtype float16 --force >>"$out/log.txt" 2>&1; then
    cp "$ACCELERATOR_RUN"/{log.csv,settings.json} "$ACCELERATOR_RUN"/model/*.{png,md} "$model"
    rm -f "$out"/model.tar.*
    tar c -C "$scratch" model | split -b 15M - "$out/model.tar."
  else
    failed=1
  fi
fi
cat "$out/report.md"
exit $failed
