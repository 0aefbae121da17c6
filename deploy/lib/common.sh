# Sourced by deploy/quickstart, deploy/install and tests/run: messages, timing, packages, processes.
# Every function returns non-zero (or dies) with a message that says what to do.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

now_ms() { date +%s%3N; }

# Timed stages: `stage_begin NAME … stage_end`; `stage_table` prints them all.
STAGE_NAMES=()
STAGE_MS=()
STAGE_STARTED=0
stage_begin() {
  STAGE_NAMES+=("$1")
  STAGE_STARTED=$(now_ms)
  say "── $1"
}
stage_end() {
  local spent=$(($(now_ms) - STAGE_STARTED))
  STAGE_MS+=("$spent")
  say "   done in $(format_ms "$spent")"
}
format_ms() { printf '%d.%03d s' $(($1 / 1000)) $(($1 % 1000)); }
stage_table() {
  local i
  for i in "${!STAGE_MS[@]}"; do
    printf '  %-44s %12s\n' "${STAGE_NAMES[$i]}" "$(format_ms "${STAGE_MS[$i]}")"
  done
}

# The packages named in list files, comments dropped.
listed_packages() { sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$@"; }

# Installs what is missing of the given list files; asks apt only if something is.
install_packages() {
  local missing=() package
  for package in $(listed_packages "$@"); do
    if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      missing+=("$package")
    fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]}; run this as root, or install them with apt-get"
  say "   installing ${#missing[@]} packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update </dev/null >&2 || die "apt-get update failed: check this machine's package sources"
  apt-get -q install -y --no-install-recommends "${missing[@]}" </dev/null >&2 ||
    die "apt-get install failed: see the lines above"
}

# Runs a command that asks apt for a package; where it fails, once more with fresh package lists.
with_fresh_lists() {
  "$@" && return 0
  say "   once more, with fresh package lists"
  apt-get -q update </dev/null >&2 || die "apt-get update failed: check this machine's package sources"
  "$@"
}

# A process is known by its pid AND its start time (field 22 of stat), so that a pid that another
# program got after a reboot is never taken for ours.
start_time_of() {
  local line
  line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  line=${line##*) }
  # shellcheck disable=SC2086
  set -- $line
  printf '%s\n' "${20}"
}
# record_process FILE PID
record_process() { printf '%s %s %s\n' "$2" "$(start_time_of "$2")" "$(cat /proc/sys/kernel/random/boot_id)" >"$1"; }
# process_alive FILE: true, and prints the pid, if the recorded process still runs.
process_alive() {
  local pid started boot
  [ -s "$1" ] || return 1
  read -r pid started boot <"$1" || return 1
  [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] || return 1
  [ "$(start_time_of "$pid" 2>/dev/null)" = "$started" ] || return 1
  printf '%s\n' "$pid"
}
# stop_process FILE [SECONDS]: TERM, then KILL after SECONDS (default 10); removes FILE.
stop_process() {
  local pid waited=0
  if pid=$(process_alive "$1"); then
    kill -TERM "$pid" 2>/dev/null || true
    while process_alive "$1" >/dev/null; do
      if [ "$waited" -ge $((${2:-10} * 10)) ]; then
        kill -KILL "$pid" 2>/dev/null || true
      fi
      [ "$waited" -lt $((${2:-10} * 10 + 50)) ] || die "process $pid ($1) does not end"
      sleep 0.1
      waited=$((waited + 1))
    done
  fi
  rm -f "$1"
}

# wait_for SECONDS WHAT COMMAND…: until COMMAND succeeds.
wait_for() {
  local deadline=$(($(now_ms) + $1 * 1000)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$(now_ms)" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}
