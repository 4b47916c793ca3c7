#!/usr/bin/env bash
# A small Ceph for tests: a monitor, a manager, and an OSD on a sparse file,
# on loopback and in one folder.
#
#   test/ceph.sh up DIR     makes DIR, which must not be there; then DIR/ceph.conf has the way in, and a pool "mallee"
#   test/ceph.sh down DIR   ends its processes, by the pids they wrote, and removes DIR
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
umask 077
verb=${1-} dir=${2-}
case $verb:$dir in up:/*|down:/*) ;; *) echo "usage: $0 up|down /ABSOLUTE/DIR" >&2; exit 2 ;; esac
export CEPH_CONF=$dir/ceph.conf
tries=300 # of a fifth of a second and what is tried

# until_true WHAT COMMAND…
until_true() {
	local what=$1 n
	shift
	for ((n = 0; n < tries; n++)); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.2
	done
	echo "Ceph: $what does not come; see $dir/log" >&2
	exit 1
}

free_port() {
	local port
	while port=$((20000 + RANDOM % 10000)); do
		(exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
	done
}

configure() {
	local fsid=$1 port=$2
	cat >"$CEPH_CONF" <<-END
		[global]
		fsid = $fsid
		mon host = v2:127.0.0.1:$port
		public addr = 127.0.0.1
		cluster addr = 127.0.0.1
		run dir = $dir/run
		pid file = $dir/run/\$type.pid
		log file = $dir/log/\$type.log
		admin socket =
		auth allow insecure global id reclaim = false
		mon allow pool size one = true
		mon warn on pool no redundancy = false
		mon data avail crit = 1
		osd pool default size = 1
		osd pool default min size = 1
		osd pool default pg autoscale mode = off
		osd crush chooseleaf type = 0
		[client]
		keyring = $dir/keyring
		log file = /dev/null
		[mon]
		mon data = $dir/mon
		[mgr]
		mgr data = $dir/mgr
		mgr initial modules =
		[osd]
		osd data = $dir/osd
		osd objectstore = bluestore
		osd memory target = 939524096
		bluestore block size = 10737418240
		bluestore block create = true
		osd crush update on start = false
		osd class update on start = false
	END
}

up() {
	mkdir -m 700 "$dir"
	mkdir "$dir"/{run,log,mon,mgr,osd}
	local fsid uuid key port
	fsid=$(cat /proc/sys/kernel/random/uuid) uuid=$(cat /proc/sys/kernel/random/uuid) port=$(free_port)
	configure "$fsid" "$port"
	ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
	ceph-authtool "$dir/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' >/dev/null
	monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$port]" "$dir/monmap" >/dev/null
	ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring"
	ceph-mon -i a
	until_true "the monitor" ceph --connect-timeout 5 mon stat
	ceph auth get-or-create mgr.a mon 'allow profile mgr' osd 'allow *' -o "$dir/mgr/keyring"
	ceph-mgr -i a
	key=$(ceph-authtool --gen-print-key)
	ceph osd new "$uuid" 0 -i - <<<"{\"cephx_secret\":\"$key\"}" >/dev/null
	ceph-authtool --create-keyring "$dir/osd/keyring" -n osd.0 --add-key "$key" >/dev/null
	ceph osd crush add osd.0 1 root=default host=here 2>/dev/null
	ceph-osd -i 0 --mkfs --osd-uuid "$uuid" 2>>"$dir/log/mkfs"
	ceph-osd -i 0 2>>"$dir/log/mkfs"
	until_true "the OSD" sh -c 'ceph osd stat | grep -q "1 up"'
	ceph osd pool create mallee 8 8 2>/dev/null
	ceph osd pool application enable mallee rbd 2>/dev/null
}

down() {
	local file pid
	for file in "$dir"/run/{osd,mgr,mon}.pid; do
		[ -s "$file" ] || continue
		pid=$(cat "$file")
		# Its folder is in its command's environment: the number may be another's by now.
		grep -qzF "CEPH_CONF=$CEPH_CONF" "/proc/$pid/environ" 2>/dev/null || continue
		kill -9 "$pid" # nothing of it is to be kept
	done
	rm -rf "$dir"
}

"$verb"
