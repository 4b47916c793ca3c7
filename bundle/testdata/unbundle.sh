#!/bin/sh
# Unpacks a bundle with nothing but sed, sha1sum, openssl, gzip and tar, and checks all that the manifest says.
# usage: unbundle.sh MANIFEST OUTFILE CLOUDKEY USERCERT
set -eu
manifest=$1 out=$2 cloud=$3 cert=$4
dir=$(dirname "$manifest")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

element() { sed -n "s|.*<$1[^>]*>\([^<]*\)</$1>.*|\1|p" "$manifest"; }
unhex() { if command -v xxd >/dev/null; then xxd -r -p; else perl -ne 'print pack "H*", $_'; fi; }
unwrap() { element "$1" | unhex | openssl pkeyutl -decrypt -inkey "$cloud" -pkeyopt rsa_padding_mode:pkcs1; }
fail() { echo "unbundle.sh: $*" >&2; exit 1; }

sed -n 's|.*\(<machine_configuration>.*</machine_configuration><image>.*</image>\).*|\1|p' "$manifest" | tr -d '\n' >"$work/signed"
element signature | unhex >"$work/signature"
openssl x509 -in "$cert" -noout -pubkey >"$work/public"
openssl dgst -sha1 -verify "$work/public" -signature "$work/signature" "$work/signed" >&2 || fail "signature"

sed 's|<part index="[0-9]*">|\n&|g' "$manifest" | sed -n 's|^<part .*<filename>\([^<]*\)</filename><digest algorithm="SHA1">\([0-9a-f]*\)</digest></part>.*|\2  \1|p' >"$work/parts"
(cd "$dir" && sha1sum --quiet -c "$work/parts") || fail "part digest"
cut -c43- "$work/parts" | while read -r part; do cat "$dir/$part"; done >"$work/encrypted"
[ "$(wc -c <"$work/encrypted")" -eq "$(element bundled_size)" ] || fail "bundled_size"

openssl enc -d -aes-128-cbc -K "$(unwrap ec2_encrypted_key)" -iv "$(unwrap ec2_encrypted_iv)" <"$work/encrypted" | gzip -dc >"$work/tar"
digest=$(sed -n 's|.*</type><digest algorithm="SHA1">\([0-9a-f]*\)</digest><size>.*|\1|p' "$manifest")
[ "$(sha1sum "$work/tar" | cut -d' ' -f1)" = "$digest" ] || fail "tar digest"
[ "$(tar -tf "$work/tar" | wc -l)" -eq 1 ] || fail "members"
[ $(($(wc -c <"$work/tar") % 10240)) -eq 0 ] || fail "blocking"
tar -xOf "$work/tar" >"$out"
[ "$(wc -c <"$out")" -eq "$(element size)" ] || fail "size"
