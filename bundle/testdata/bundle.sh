#!/bin/sh
# Bundles an image with nothing but tar, gzip, openssl, split and sha1sum, to test ours against.
# usage: bundle.sh IMAGE PREFIX OUTDIR KEYHEX IVHEX PARTSIZE CLOUDCERT USERCERT USERKEY
set -eu
image=$1 prefix=$2 out=$3 key=$4 iv=$5 part=$6 cloud=$7 cert=$8 private=$9
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$image" "$work/$prefix"
tar --format=gnu --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=0644 -C "$work" -cf "$work/tar" "$prefix"
gzip -c <"$work/tar" | openssl enc -aes-128-cbc -K "$key" -iv "$iv" >"$work/encrypted"
split -b "$part" -d -a 2 "$work/encrypted" "$out/$prefix.part."

sha1() { sha1sum "$1" | cut -d' ' -f1; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
wrap() { printf %s "$2" | openssl pkeyutl -encrypt -certin -inkey "$1" -pkeyopt rsa_padding_mode:pkcs1 | hex; }

parts='' n=0
for file in "$out/$prefix".part.*; do
	parts="$parts<part index=\"$n\"><filename>$(basename "$file")</filename><digest algorithm=\"SHA1\">$(sha1 "$file")</digest></part>"
	n=$((n + 1))
done
size=$(wc -c <"$image" | tr -d ' ')
bundled=$(wc -c <"$work/encrypted" | tr -d ' ')
printf %s "<machine_configuration><architecture>x86_64</architecture><kernel_id>eki-0a1b2c3d</kernel_id></machine_configuration>" >"$work/signed"
printf %s "<image><name>$prefix</name><user>123456789012</user><type>machine</type><digest algorithm=\"SHA1\">$(sha1 "$work/tar")</digest><size>$size</size><bundled_size>$bundled</bundled_size><ec2_encrypted_key algorithm=\"AES-128-CBC\">$(wrap "$cloud" "$key")</ec2_encrypted_key><user_encrypted_key algorithm=\"AES-128-CBC\">$(wrap "$cert" "$key")</user_encrypted_key><ec2_encrypted_iv>$(wrap "$cloud" "$iv")</ec2_encrypted_iv><user_encrypted_iv>$(wrap "$cert" "$iv")</user_encrypted_iv><parts count=\"$n\">$parts</parts></image>" >>"$work/signed"
signature=$(openssl dgst -sha1 -sign "$private" "$work/signed" | hex)
{
	printf %s '<?xml version="1.0"?><manifest><version>2007-10-10</version><bundler><name>shell</name><version>1</version><release>0</release></bundler>'
	cat "$work/signed"
	printf %s "<signature>$signature</signature></manifest>"
} >"$out/$prefix.manifest.xml"
