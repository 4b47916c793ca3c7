#!/bin/sh
# Installs the Debian packages that demo, tests and benchmarks need and that are missing;
# `packages.sh ceph` those of the tests on Ceph too.
set -eu

missing=
need() { # command package
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
PATH=$PATH:/usr/sbin:/sbin
need qemu-system-x86_64 qemu-system-x86
need qemu-img qemu-utils
need qemu-storage-daemon qemu-system-common
need mke2fs e2fsprogs
need ssh openssh-client
need curl curl
need openssl openssl
need python3 python3
need dpkg-deb dpkg
need aws awscli
need pgrep procps
if [ "${1-}" = ceph ]; then
	need ceph-mon ceph-mon
	need ceph-mgr ceph-mgr
	need ceph-osd ceph-osd
	need rbd ceph-common
	# No command of it: QEMU's driver, which is in no place that is the same everywhere.
	ls /usr/lib/*/qemu/block-rbd.so >/dev/null 2>&1 || missing="$missing qemu-block-extra"
fi

[ -n "$missing" ] || exit 0
as_root=
if [ "$(id -u)" != 0 ]; then
	as_root=sudo
	command -v sudo >/dev/null 2>&1 || { echo "missing packages:$missing; as root: apt-get install$missing" >&2; exit 1; }
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q >&2
# shellcheck disable=SC2086
$as_root apt-get install -y -q --no-install-recommends $missing >&2
