# Sourced by the entry scripts: how they report what they do.
#
#   say TEXT...          one line
#   fail TEXT...         one line on stderr, then exit status 1
#   step TEXT COMMAND... runs the command with its output in $step_logs/, shows that time passes, and
#                        on failure the end of the log; the status is the command's
# shellcheck shell=bash

step_logs=${step_logs:?set it before sourcing steps.sh}
step_ticker=

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# The last thing that a command printed, without control bytes and short enough for one line.
step_last_words() {
  tail -c 400 "$1" 2>/dev/null | tr '\r' '\n' | tr -dc '[:print:]\n' | sed '/^ *$/d' | tail -n 1 |
    cut -c -60
}

step_tick() {
  local text=$1 log=$2 begin=$SECONDS never
  # A pipe that nobody writes to: unlike sleep, reading it with a timeout is no process of its own,
  # which would outlive this one and keep the output open.
  exec {never}<> <(:)
  if [[ -t 1 ]]; then
    until read -rt 1 -u "$never"; do
      printf '\r\033[K%s (%d s) %s' "$text" $((SECONDS - begin)) "$(step_last_words "$log")"
    done
  else
    until read -rt 20 -u "$never"; do
      printf '  ... %d s: %s\n' $((SECONDS - begin)) "$(step_last_words "$log")"
    done
  fi
}

step_stop_ticker() {
  [[ -n $step_ticker ]] || return 0
  kill "$step_ticker" 2>/dev/null || true
  wait "$step_ticker" 2>/dev/null || true
  step_ticker=
  [[ ! -t 1 ]] || printf '\r\033[K'
}

step() {
  local text=$1 log begin=$SECONDS status=0
  shift
  mkdir -p "$step_logs"
  log=$step_logs/$(tr -cs '[:alnum:]\n' '-' <<<"$text" | sed 's/-*$//').log
  : >"$log"
  [[ -t 1 ]] || say "$text"
  step_tick "$text" "$log" &
  step_ticker=$!
  # In the foreground, so that Ctrl-C reaches it.
  "$@" >"$log" 2>&1 </dev/null || status=$?
  step_stop_ticker
  if ((status == 0)); then
    if [[ -t 1 ]]; then
      say "$text: done ($((SECONDS - begin)) s)"
    else
      say "  done ($((SECONDS - begin)) s)"
    fi
    return 0
  fi
  {
    say "$text: failed after $((SECONDS - begin)) s with status $status. The end of its output:"
    tail -n 40 "$log" | sed 's/^/  | /'
    say "All of it: $log"
  } >&2
  return "$status"
}
