# Shared by the commands of the lab; sourced, not run.
# shellcheck shell=bash

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RUN=${VPNLAB_DIR:-${XDG_RUNTIME_DIR:-/tmp}/vpnlab}
NETNS=${VPNLAB_NETNS:-vpnlab-client}
# shellcheck disable=SC2034
CLIENT_IP=10.77.0.2 # used by up
SERVER_IP=10.77.0.1

say() { printf 'lab: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
need_root() { [[ $(id -u) -eq 0 ]] || die "needs root (it makes a network namespace and a tap device)"; }

# alive PIDFILE: is the process that the file names still ours?  The file holds
# the pid and its start time, so that a reused pid is not taken for ours.
start_time() { # field 22 of stat, counted behind the command name
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086
  set -- $stat
  echo "${20}"
}
alive() {
  local pid start
  [[ -r $1 ]] && read -r pid start <"$1" && [[ $(start_time "$pid") == "$start" ]]
}

# mode: "netns" (the default) or "host"
lab_mode() { cat "$RUN/mode" 2>/dev/null || echo netns; }
in_lab_net() { # run a command where the lab's network is
  if [[ $(lab_mode) == netns ]]; then
    # nsenter, because ip netns exec would also hide /sys
    nsenter --net="/run/netns/$NETNS" "$@"
  else
    "$@"
  fi
}

# boot ROLE TAP: start a User Mode Linux guest.  It sees the host's root
# directory read-only, and $RUN read-write on /mnt.
boot() {
  local role=$1 tap=$2 pid net preload tmp=/dev/shm
  [[ -w $tmp ]] || tmp=$RUN # the guest's memory is a file here
  mkdir -p "$RUN/log/$role"
  rm -f "$RUN/$role.ready" "$RUN/$role.failed"
  # unshare --kill-child: the guest and every process it made on the host go
  # when this one process goes.  env, nsenter and setsid exec what follows, so
  # $! is unshare.
  net=() preload=()
  # see xstate.c
  if grep -qw amx_tile /proc/cpuinfo; then
    cc -O2 -Wall -shared -fPIC -o "$RUN/xstate.so" "$LAB_DIR/xstate.c" || die "cannot build xstate.c"
    preload=("LD_PRELOAD=$RUN/xstate.so")
  fi
  [[ $(lab_mode) == netns ]] && net=(nsenter "--net=/run/netns/$NETNS")
  env -i PATH="$PATH" HOME="$RUN" TMPDIR="$tmp" "${net[@]}" \
    setsid unshare --pid --fork --kill-child \
    env "${preload[@]}" linux.uml "mem=${VPNLAB_MEM:-512M}" rootfstype=hostfs rootflags=/ ro quiet \
    "uml_dir=$RUN/uml" "umid=$role" con=null con0=null,fd:1 ssl=null \
    "vec0:transport=tap,ifname=$tap,depth=128,gro=1" \
    "init=$LAB_DIR/guest/init" "VPNLAB_ROLE=$role" "VPNLAB_LIB=$LAB_DIR" "VPNLAB_RUN=$RUN" \
    </dev/null >"$RUN/log/$role/console.log" 2>&1 &
  pid=$!
  disown
  echo "$pid $(start_time "$pid")" >"$RUN/$role.pid"
}

# wait_ready ROLE SECONDS
wait_ready() {
  local i
  for ((i = 0; i < $2 * 10; i++)); do
    [[ -e $RUN/$1.ready ]] && return 0
    if [[ -e $RUN/$1.failed ]]; then
      say "the $1 guest says: $(cat "$RUN/$1.failed")"
      return 1
    fi
    alive "$RUN/$1.pid" || { say "the $1 guest ended; see $RUN/log/$1/console.log"; return 1; }
    sleep 0.1
  done
  say "the $1 guest was not ready after $2 s; see $RUN/log/$1/"
  return 1
}

# stop ROLE: end one guest, by its own pid
stop() {
  local pid
  if alive "$RUN/$1.pid"; then
    read -r pid _ <"$RUN/$1.pid"
    # KILL, as unshare takes no notice of TERM; the guest goes with it
    kill -KILL "$pid" 2>/dev/null
    for _ in {1..50}; do alive "$RUN/$1.pid" || break; sleep 0.1; done
  fi
  rm -f "$RUN/$1.pid" "$RUN/$1.ready"
}

# guest ROLE: run the bash script on stdin as root in a guest; its output and
# status come back.  A small server in the guest asks for the token first.
guest() {
  local ip=$SERVER_IP out status
  [[ $1 == client ]] && ip=10.77.0.200
  out=$({ cat "$RUN/token"; echo; cat; } |
    in_lab_net socat -t 600 -T 600 - "TCP:$ip:2323,connect-timeout=5") || return 125
  status=${out##*VPNLAB-STATUS }
  out=${out%VPNLAB-STATUS *}
  printf '%s' "$out"
  return "$status"
}
