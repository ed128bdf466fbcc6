#!/bin/sh
# Runs a test program as the first user of /etc/subuid. Exit status 77: skipped, with the reason.
set -eu
if [ "$(id -u)" -ne 0 ]; then
  echo "skipped: the tests run as an ordinary user already"
  exit 77
fi
user=$(cut -d: -f1 /etc/subuid | head -n 1)
if [ -z "$user" ] || [ "$(id -u "$user" 2>/dev/null || echo 0)" -eq 0 ]; then
  echo "skipped: no ordinary user has subordinate ids; make one with: useradd -m tester"
  exit 77
fi
if ! setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups test -x "$1"; then
  echo "skipped: $user cannot read the build directory"
  exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chown "$user" "$scratch"
setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups \
  env -i PATH="$PATH" HOME="$scratch" TEST_TMPDIR="$scratch" LC_ALL=C.UTF-8 \
  sh -c 'cd "$HOME" && exec "$@"' sh "$@" --gtest_brief=1
