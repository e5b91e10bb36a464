# SPDX-License-Identifier: Apache-2.0
# What .ci/run is made of: how steps are told and tried again, and which Pythons there are.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
export PIP_DEFAULT_TIMEOUT=30 PIP_RETRIES=8  # a registry that hangs is asked again: 200 s were lost
top=$PWD
shared=$(dirname "$top")/shared
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# -- steps

step_begun=0
step() {
    printf '\n== %s (%d s in all, %d s for the last step)\n' \
        "$*" "$SECONDS" $((SECONDS - step_begun))
    step_begun=$SECONDS
}

# What fails is tried once more, of tests those that failed, and the log says so: a busy machine may
# be late. What is broken fails both times.
twice() {
    "$@" && return
    printf '\n== FAILED ONCE, trying again: %s\n' "$*"
    "$@"
}
tests() {
    "$@" && return
    printf '\n== FAILED ONCE, trying what failed again: %s\n' "$*"
    "$@" --last-failed --last-failed-no-failures none
}

# spare TITLE COMMAND...: a step that is left out when the others took too long.
late=${CI_LATE:-2100}  # seconds, 35 minutes: what comes after the spare steps takes five
spare() {
    local title=$1
    shift
    if [ "$SECONDS" -gt "$late" ]; then
        printf '\n== LEFT OUT, since it is late: %s\n' "$title"
        return
    fi
    step "$title"
    "$@"
}

# -- Pythons

# A sortable name for a Python that the tests are for: 3.08, 3.13t (free-threaded), pypy3.11.
name_of() {
    "$1" 2>/dev/null - <<'PYTHON'
import sys, sysconfig
import ensurepip, ssl, venv

version = sys.version_info[:2]
if version >= (3, 8):
    prefix = "" if sys.implementation.name == "cpython" else sys.implementation.name
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    print("%s%d.%02d%s" % ((prefix,) + version + (threads,)))
PYTHON
}

# Every Python from 3.8, one of each minor version and kind: `names`, oldest first, PyPy last, and
# `python_of` by name.
names=()
declare -A python_of
find_pythons() {
    local minor python name
    local candidates=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python)
    for minor in $(seq 8 30); do
        candidates+=("$(command -v "python3.$minor" || true)")
        candidates+=("$(command -v "python3.${minor}t" || true)")
    done
    candidates+=("$(command -v python3 || true)" "$(command -v pypy3 || true)")
    while read -r python; do candidates+=("$python"); done <"$1"

    for python in "${candidates[@]}"; do
        [ -x "$python" ] || continue
        name=$(name_of "$python") || continue
        [ -n "$name" ] && [ -z "${python_of[$name]:-}" ] && python_of[$name]=$python
    done
    mapfile -t names < <(printf '%s\n' "${!python_of[@]}" | sort)
}

# Those with a lock: the oldest and the newest do what is done on two only.
plain_names() { printf '%s\n' "${names[@]}" | grep -E '^[0-9.]+$'; }

# make_venv NAME PACKAGES...: in $work/NAME.
make_venv() {
    local name=$1
    shift
    "${python_of[$name]}" -m venv "$work/$name"
    twice "$work/$name/bin/pip" install -q "$@"
}

# run_tests NAME FOLDER ARGUMENTS...: pytest of a venv, its cache in $work/FOLDER; 15 minutes.
run_tests() {
    local name=$1 folder=$2
    shift 2
    PYTHON_GIL=$([[ $name != *t ]] || echo 0) \
        tests timeout 900 "$work/$name/bin/python" -m pytest -o "cache_dir=$work/$folder" "$@"
}
