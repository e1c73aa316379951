#!/usr/bin/env bash
# Train on an NVIDIA card, compare with the CPU, and write what was measured as one JSON file. CONTRIBUTING.md says more.
#   bash .ci/cuda.sh wheels DIR              here, with a network: collect the packages that the other machine may lack
#   bash .ci/cuda.sh run FILE [--device cpu] [--small] …    there, without one: at most eight minutes
# WHEELS names the folder of wheels there, COLLAB_COURSE_DATA the folder that holds ml-100k, PYTHON the interpreter.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -z "${COLLAB_COURSE_DATA:-}" ] && [ -d "$root/../shared/data" ]; then
  COLLAB_COURSE_DATA=$(cd "$root/../shared/data" && pwd); export COLLAB_COURSE_DATA
fi
if [ "${1:-}" = run ] && [ -n "${WHEELS:-}" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  mapfile -t missing < <("$python" "$root/.ci/cuda.py" missing "$WHEELS")
  if [ ${#missing[@]} -gt 0 ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "${missing[@]}"
  fi
  export PYTHONPATH="$PYTHONPATH:$site"
fi
"$python" "$root/.ci/cuda.py" "$@"
