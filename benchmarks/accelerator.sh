#!/usr/bin/env bash
# On a machine with a GPU that JAX and torch see: parity (-m gpu), the benchmark and a profile, in under
# eight minutes, in one report: OUT/report.md. No part waits for another's success; the exit code is
# 1 where one failed.
#
#   pip install -e '.[test]' 'jax[cuda13]'    (and torch for the same CUDA)
#   benchmarks/accelerator.sh [OUT]
#
# PYTHON names the interpreter; MINUTES shares out another time than eight.
set -uo pipefail
out=$(realpath -m "${1:-accelerator}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
seconds=$((${MINUTES:-8} * 60))
mkdir -p "$out"
report=$out/report.md
failed=0

part() { # title, share of the time in percent, the file that holds its table or -, command
  local title=$1 limit=$((seconds * $2 / 100)) table=$3 status=0 started=$SECONDS
  shift 3
  timeout "$limit" "$@" >"$out/$title.log" 2>&1 || status=$?
  [ $status -eq 0 ] || failed=1
  {
    echo "## $title"
    echo
    echo "\`$*\`: exit code $status after $((SECONDS - started)) s (limit $limit; 124: it ran out)."
    echo
    if [ "$table" != - ] && [ -f "$table" ]; then
      cat "$table"
    else
      echo '```'
      tail -n 25 "$out/$title.log"
      echo '```'
    fi
    echo
  } >>"$report"
}

{
  echo "# jaxdiff on an accelerator, $(date -u +%F)"
  echo
  echo '```'
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1
  "$python" -c '
import jax, torch, jaxdiff
print("jax", jax.__version__, jax.devices(), "torch", torch.__version__, torch.cuda.is_available())' 2>&1
  git rev-parse --short HEAD 2>/dev/null
  echo '```'
  echo
} >"$report"

part parity 30 - "$python" -m pytest -m gpu -rA -q -p no:xdist tests
part benchmark 55 "$out/benchmark/RESULTS.md" "$python" -m benchmarks --quick --only "forward|dps" --repeats 5 --out "$out/benchmark"
part profile 12 "$out/profile/profile.md" "$python" -m benchmarks.profile --n 32 --out "$out/profile"
cat "$report"
exit $failed
