"""The shell text of the lock of :mod:`cars_hw.devices.remote_folder`.

Only what every shell and the oldest phone have is used: no grep, no dirname, no options of mv. Files are read by
the shell itself, because a linker may put a warning before the output of a program. Words in capitals are replaced.

The text may end between any two of its commands: a cable comes out, a phone restarts, a process is killed. So the
lock is a folder that is prepared under another name and moved into place, and moved away before it is removed. mv
moves into a folder that is there already, and then the lock has another holder. Its files are written over and
never emptied, since a storage without room takes no new content.
"""

from __future__ import annotations

from typing import Final

SAYS: Final = "@cars-hw"
"""The word before what a script says."""

STOP_S: Final = 10
"""How long a script that was told to stop may take to restore the machine, in seconds."""

BOOT: Final = "/proc/sys/kernel/random/boot_id"
"""A file that has another content after every start of a machine."""

FUNCTIONS: Final = """\
note() { echo "@cars-hw note $*"; }
line_of() {
  line=
  { read -r line < "$1"; } 2>/dev/null
  echo "$line"
}
uptime_s() {
  up=
  { read -r up rest < /proc/uptime; } 2>/dev/null
  up=${up%%.*}
  [ -n "$up" ] || up=$(date +%s)
  echo "$up"
}
renew() {
  { uptime_s 1<> FOLDER/lock/seen; } 2>/dev/null
  { line_of BOOT 1<> FOLDER/lock/boot; } 2>/dev/null
}
is_owner() { [ "$(line_of FOLDER/lock/owner)" = "RECORD" ]; }
is_running() {
  pid=$(line_of FOLDER/lock/pid)
  [ -n "$pid" ] || return 1
  # The number may be that of another program since.
  line=
  { line=$(cat "/proc/$pid/cmdline"); } 2>/dev/null
  case $line in *cars-hw*) return 0 ;; esac
  return 1
}
stop_script() {
  is_running || return 0
  kill "$pid" 2>/dev/null
  waited=0
  while is_running; do
    [ $waited -lt STOP_S ] || return 1
    sleep 1
    waited=$((waited + 1))
  done
}"""
"""What every script has: ``note``, ``line_of``, ``uptime_s``, ``renew``, ``is_owner``, ``stop_script``."""

CLAIM: Final = """\
is_ours() {
  case $1 in before.new) return 0 ;; esac
  token=${1#seized-}
  token=${token#lock-}
  case $token in *[!0-9a-f]*) return 1 ;; esac
  [ ${#token} = 16 ]
}
clean() {
  restore
  for each in *; do
    if [ "$each" != OWN ] && is_ours "$each"; then rm -rf "./$each"; fi
  done
  mkdir -p OWN
}
make() {
  rm -rf lock-OWN
  problem=$(mkdir lock-OWN 2>&1) || return
  { line_of BOOT > lock-OWN/boot; } 2>/dev/null
  { uptime_s > lock-OWN/seen; } 2>/dev/null
  { echo "RECORD" > lock-OWN/owner; } 2>/dev/null
  if [ "$(line_of lock-OWN/owner)" = "RECORD" ] && [ -n "$(line_of lock-OWN/seen)" ]; then
    if problem=$(mv lock-OWN lock 2>&1); then fresh=yes; fi
  else
    problem="no space left"
  fi
  rm -rf lock-OWN lock/lock-OWN
}
seize() {
  stop_script || return
  rm -rf seized-OWN
  # Another process may have seized the lock meanwhile: then it gets back what was moved.
  problem=$(mv lock seized-OWN 2>&1) || return
  if [ "$(line_of seized-OWN/owner)" = "$1" ]; then rm -rf seized-OWN; else mv seized-OWN lock >/dev/null 2>&1; fi
}
held() {
  # What tells nothing of its time has all of it from now on.
  made=$(line_of lock/boot) present=$(line_of BOOT) again=
  [ -n "$made" ] || { line_of BOOT 1<> lock/boot; } 2>/dev/null
  case $(line_of lock/seen) in ""|*[!0-9]*) { uptime_s > lock/seen; } 2>/dev/null ;; esac
  [ -n "$made" ] && [ -n "$present" ] && [ "$made" != "$present" ] && again=again
  echo "@cars-hw held $(line_of lock/owner) / $(line_of lock/seen) / $(uptime_s) / $again"
}
claim() {
  fresh= problem= slept=
  # Others come and go meanwhile: whoever leaves removes the folder, and whoever comes what is not its own.
  for try in 1 2 3 4 5 6 7 8 9; do
    mkdir -p FOLDER && cd FOLDER || return
    if is_owner; then
      renew
      [ -z "$fresh" ] && [ -d OWN ] && { echo "@cars-hw kept"; return; }
      clean
      echo "@cars-hw claimed"
      return
    fi
    if [ ! -d lock ]; then make; continue; fi
    if [ -n "$(line_of lock/owner)" ]; then held; return; fi
    # An older cars-hw makes a lock before it writes its name.
    [ -n "$slept" ] || { sleep 1; slept=yes; }
    [ -n "$(line_of lock/owner)" ] || seize ""
  done
  echo "@cars-hw unwritable $problem"
}"""
"""``claim`` takes the lock and removes what is left; ``seize`` takes it from a holder that is gone."""

LEAVE: Final = """\
cd FOLDER 2>/dev/null || exit 0
is_owner || exit 0
stop_script
restore
rm -rf OWN
mv lock seized-OWN >/dev/null 2>&1
rm -rf seized-OWN
cd .. && rmdir FOLDER 2>/dev/null"""
"""Restores the machine, and removes the lock and the files of its holder."""
