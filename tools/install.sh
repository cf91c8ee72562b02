#!/usr/bin/env bash
# Makes or repairs .venv from requirements.lock; does nothing when it is up to date.
#
# The stamp is written last and holds a hash of all that decides the result, so an interrupted or
# failed install is taken up again and an edited lock or pyproject.toml is noticed. torch comes first
# and by itself: pip then picks the build for this machine (or a local wheel), and the rest is
# installed exactly as locked.
set -euo pipefail
cd "$(dirname "$0")/.."

torch=torch==2.13.0
stamp=.venv/stagegate-stamp
log=.venv/install.log

wanted() {
  { printf '%s\n' "$PWD" "$torch"; cat requirements.lock pyproject.toml tools/install.sh; } |
    git hash-object --stdin
}

say() { printf 'install: %s\n' "$*"; }

find_python() {
  local name
  for name in python3.11 python3.12 python3 python; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
      >/dev/null 2>&1; then
      printf '%s\n' "$name"
      return
    fi
  done
  say "no Python 3.11 or 3.12 with venv found on PATH; install python3.11 (on Debian: python3.11-venv)" >&2
  return 1
}

usable_venv() {
  .venv/bin/python -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
    >/dev/null 2>&1
}

# pip writes RECORD last: a package without one was cut off half-way, and pip would take it as done.
forget_half_installed() {
  local info
  for info in .venv/lib/python3.*/site-packages/*.dist-info; do
    if [ -d "$info" ] && [ ! -e "$info/RECORD" ]; then rm -rf "$info"; fi
  done
}

step() { # step TEXT COMMAND...
  say "$1"
  if ! "${@:2}" >>"$log" 2>&1; then
    tail -n 25 "$log" >&2
    say "this step failed: $1. The whole output is in $log; 'make install' goes on from here." >&2
    return 1
  fi
}

stamp_is_current() { [ "$(cat "$stamp" 2>/dev/null)" = "$1" ]; }

stamp_is_current "$(wanted)" && exit 0

python=$(find_python)
mkdir -p .venv
if command -v flock >/dev/null; then # two installs at once: the second waits, then finds it done
  exec 9>.venv/install.lock
  flock 9
  stamp_is_current "$(wanted)" && exit 0
fi
rm -f "$stamp"
: >"$log"
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say "setting up .venv; the first time this downloads about 2.7 GB (most of it torch)"
usable_venv || step "1/4 virtual environment with $($python --version)" "$python" -m venv .venv
forget_half_installed
step "2/4 $torch" .venv/bin/python -m pip install "$torch"
step "3/4 $(grep -c == requirements.lock) locked packages" \
  .venv/bin/python -m pip install --no-deps -r requirements.lock
step "4/4 stagegate itself, editable" \
  .venv/bin/python -m pip install --no-deps --no-build-isolation -e .
wanted >"$stamp.new"
mv "$stamp.new" "$stamp"
say "done"
