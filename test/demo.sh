#!/bin/bash
# A whole cloud from nothing: builds mallee, starts it in a fresh folder, installs two small images, runs two instances of
# each, logs in, reads a console, terminates all, and shows that nothing is left. Ends non-zero if any step fails.
set -euo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
shown() { printf '   $ %s\n' "$*"; "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
ec2() { aws --endpoint-url "$AWS_ENDPOINT_URL" --no-cli-pager ec2 "$@"; }
aws --version 2>/dev/null | grep -q aws-cli/2 || ec2() { aws --endpoint-url "$AWS_ENDPOINT_URL" ec2 "$@"; }

say "What this host lacks is installed, and mallee is built"
test/packages.sh
make --no-print-directory build
packaged=$SECONDS

data=$(mktemp -d)
mallee=$PWD/bin/mallee
finish() {
	status=$?
	[ $status = 0 ] || { echo "-- the cloud's last words:"; tail -n 40 "$data/log" || true; } >&2
	"$mallee" down --data "$data" --destroy --yes >/dev/null 2>&1 || true
	rm -rf "$data" "$data.key"
	exit $status
}
trap finish EXIT

say "The cloud starts"
"$mallee" up --data "$data" --listen 127.0.0.1:0 >"$data/up" 2>"$data/log" &
up=$!
starting=$SECONDS
until [ -s "$data/up" ]; do
	kill -0 $up 2>/dev/null || fail "mallee up ended"
	[ $((SECONDS - starting)) -lt 60 ] || fail "mallee up says nothing"
	sleep 0.1
done
cat "$data/up"
set -a
# shellcheck disable=SC1091
. "$data/eucarc"
set +a
unset AWS_CA_BUNDLE AWS_PROFILE
curl -fsS "$AWS_ENDPOINT_URL/healthz"

say "Two images are built from Debian's packages, bundled, uploaded to Walrus and registered"
hvm=$(shown "$mallee" image install tiny --data "$data" | tee /dev/stderr | awk '$2 ~ /^emi-/ { print $2 }')
pv=$(shown "$mallee" image install tiny-pv --data "$data" | tee /dev/stderr | awk '$2 ~ /^emi-/ { print $2 }')
ec2 describe-images --owners self --query 'Images[].[ImageId,ImageType,VirtualizationType,State,Name]' --output text

say "A key pair is made"
ec2 create-key-pair --key-name demo --key-type ed25519 --query KeyMaterial --output text >"$data.key"
chmod 600 "$data.key"
ec2 describe-key-pairs --query 'KeyPairs[].[KeyName,KeyFingerprint]' --output text

say "SSH is allowed to the default security group, which lets nobody in by itself"
ec2 authorize-security-group-ingress --group-name default --protocol tcp --port 22 --cidr 0.0.0.0/0 >/dev/null
ec2 describe-security-groups --group-names default \
	--query 'SecurityGroups[].IpPermissions[].[IpProtocol,FromPort,ToPort,IpRanges[].CidrIp|[0],UserIdGroupPairs[].GroupId|[0]]' --output text

say "Two instances of each image are run, one command and one reservation each"
for image in "$hvm" "$pv"; do
	ec2 run-instances --image-id "$image" --count 2 --key-name demo --instance-type m1.small \
		--query '[ReservationId, Instances[].[InstanceId, PrivateIpAddress, PublicIpAddress, State.Name]]' --output text
done
instances=$(ec2 describe-instances --query 'Reservations[].Instances[].InstanceId' --output text)
[ "$(wc -w <<<"$instances")" = 4 ] || fail "not 4 instances: $instances"
# shellcheck disable=SC2086
ec2 wait instance-running --instance-ids $instances

say "The guests are waited for until they answer by SSH"
ssh_of() { # instance: the address and port at which its port 22 is reached, which is another number where the host holds 22
	sed -n 's/.*"port":22,"listen":"\([^"]*\)".*/\1/p' "$data/node/machines/$1/ports.json"
}
login() { # address:port command...
	local to=${1%:*} port=${1#*:}
	shift
	timeout 20 ssh -q -p "$port" -i "$data.key" -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null "root@$to" "$@"
}
bar() { # done total
	local marks='########################'
	printf '\r   [%-24s] %d of %d guests answer, %d s' "${marks:0:$(($1 * 24 / $2))}" "$1" "$2" $((SECONDS - waiting))
}
waiting=$SECONDS answered=0 addresses=
for i in $instances; do
	address=$(ssh_of "$i")
	[ -n "$address" ] || fail "SSH of $i is not published"
	addresses="$addresses $address"
done
bar 0 4
for address in $addresses; do
	until login "$address" true 2>/dev/null; do
		[ $((SECONDS - waiting)) -lt 300 ] || fail "$address does not answer"
		bar $answered 4
		sleep 0.5
	done
	answered=$((answered + 1))
	bar $answered 4
done
echo

say "One is logged into"
first=$(ssh_of "${instances%%[[:space:]]*}")
# shellcheck disable=SC2016
shown login "$first" 'echo "this is $(hostname), up $(cut -d. -f1 /proc/uptime) s, kernel $(uname -r)"; df -h / | tail -1'

say "Its console"
console=$(ec2 get-console-output --instance-id "${instances%%[[:space:]]*}" --query Output --output text)
[ -n "$console" ] || fail "the console is empty"
tail -n 12 <<<"$console" | sed 's/^/   | /'

say "All are terminated"
# shellcheck disable=SC2086
ec2 terminate-instances --instance-ids $instances --query 'TerminatingInstances[].[InstanceId,PreviousState.Name,CurrentState.Name]' --output text
# shellcheck disable=SC2086
ec2 wait instance-terminated --instance-ids $instances
ec2 describe-instances --query 'Reservations[].Instances[].[InstanceId,State.Name,StateReason.Message]' --output text

say "Nothing is left"
for i in $instances; do
	! pgrep -f "qemu-system.*$i" >/dev/null || fail "a process of $i is left"
done
[ -z "$(ls "$data/node/machines")" ] || fail "machines are left: $(ls "$data/node/machines")"
[ -z "$(ls "$data/node/disks")" ] || fail "disks are left: $(ls "$data/node/disks")"
for address in $addresses; do
	! (exec 3<>"/dev/tcp/${address%:*}/${address#*:}") 2>/dev/null || fail "somebody still answers at $address"
done
echo "   no process, no disk, no address"

printf '\nDone in %d s (%d s of them for packages and the build).\n' $((SECONDS - began)) $packaged
