#!/bin/sh
# Stands in for mmdebstrap: the same, with a clock that shows another year, in mmdebstrap itself and
# in every program that runs in the guest's tree while its packages are installed. The library that
# does it, other_clock.so, is in the folder of the link through which this is called.
set -eu
real=/usr/bin/mmdebstrap
library=$(dirname "$0")/other_clock.so
case "${1:-}" in --unshare-helper | --version) exec "$real" "$@" ;; esac
# Not where ldconfig would find it.
enter="set -e
mkdir \"\$1\"/usr/clock
cp '$library' \"\$1\"/usr/clock/other_clock.so
echo /usr/clock/other_clock.so >\"\$1\"/etc/ld.so.preload"
leave="test \"\$(chroot \"\$1\" date +%Y%m)\" != \"$(date +%Y%m)\" || exit 1
rm -r \"\$1\"/usr/clock \"\$1\"/etc/ld.so.preload"
export LD_PRELOAD="$library"
exec "$real" --extract-hook="$enter" --customize-hook="$leave" "$@"
