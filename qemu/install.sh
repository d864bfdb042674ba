#!/bin/sh
# install.sh COMMAND=PACKAGE...: installs the Debian packages whose commands are missing, and says so. For make.
set -eu
missing=
for pair in "$@"; do
	command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "dinos: missing:$missing. There is no apt-get here: install them with this system's package manager." >&2
	exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
	as_root=sudo
	if ! command -v sudo >/dev/null 2>&1; then
		echo "dinos: missing:$missing. Installing needs root and there is no sudo: run 'apt-get install$missing' as root." >&2
		exit 1
	fi
fi
echo "dinos: installing$missing with apt-get (once)"
# shellcheck disable=SC2086 # a list
try() { DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends $missing >/tmp/dinos-apt.log 2>&1; }
if ! try; then
	$as_root apt-get update >/tmp/dinos-apt.log 2>&1 || true
	if ! try; then
		tail -5 /tmp/dinos-apt.log >&2
		echo "dinos: could not install$missing; see /tmp/dinos-apt.log" >&2
		exit 1
	fi
fi
rm -f /tmp/dinos-apt.log
