package image

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// Publishers keep the digests of their images in a file beside them. Four forms are read, a line each:
//
//	HEX  NAME            coreutils, NAME perhaps with a * in front (Debian, Ubuntu)
//	SHA256 (NAME) = HEX  BSD, as coreutils with --tag writes it (Fedora, AlmaLinux)
//	HEX                  in a file of its own, NAME.sha256 or NAME.sha512 (Alpine)
//
// and lines of anything else around them, as an OpenPGP signature in the text. The signature is not
// verified: who vouches for the list is the publisher's https server.

// maxSumsBytes bounds such a file; Ubuntu's has some 20 KB.
const maxSumsBytes = 1 << 20

var (
	coreutilsSum = regexp.MustCompile(`^([0-9a-fA-F]+) [ *](\S+)$`)
	bsdSum       = regexp.MustCompile(`^SHA(256|512) \((\S+)\) = ([0-9a-fA-F]+)$`)
)

// findSum returns the digest of a file in a list of them, in lower case. A file that is listed twice with
// different digests has none.
func findSum(list []byte, hash, name string) (string, error) {
	found := ""
	for line := range strings.Lines(string(list)) {
		sum := sumIn(strings.TrimRight(line, " \t\r\n"), hash, name)
		switch {
		case sum == "" || sum == found:
		case found != "":
			return "", fmt.Errorf("the list has two %s digests of %s: %s and %s", hash, name, found, sum)
		default:
			found = sum
		}
	}
	if found == "" {
		found = bareSum(list, hash)
	}
	if found == "" {
		return "", fmt.Errorf("the list has no %s digest of %s", hash, name)
	}
	return found, nil
}

// sumIn reads one line; "" where it isn't about that file.
func sumIn(line, hash, name string) string {
	sum, of := "", ""
	if m := coreutilsSum.FindStringSubmatch(line); m != nil {
		sum, of = m[1], strings.TrimPrefix(m[2], "./")
	} else if m := bsdSum.FindStringSubmatch(line); m != nil && hash == "sha"+m[1] {
		sum, of = m[3], m[2]
	}
	if of != name || !isSum(sum, hash) {
		return ""
	}
	return strings.ToLower(sum)
}

// bareSum is the digest that is all of a list.
func bareSum(list []byte, hash string) string {
	if s := strings.TrimSpace(string(list[:min(len(list), 200)])); isSum(s, hash) && len(list) < 200 {
		return strings.ToLower(s)
	}
	return ""
}

func isSum(s, hash string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == hashes[hash]
}

// Expected is the digest that a download has to have, as ALGORITHM:HEX; where the index names a list, it
// is fetched.
func (d Download) Expected(ctx context.Context, client *http.Client) (string, error) {
	if d.Digest != "" {
		hash, sum, err := splitDigest(d.Digest)
		return hash + ":" + sum, err
	}
	u, err := url.Parse(d.URL)
	if err != nil {
		return "", err
	}
	if err := checkURL(d.Sums, "https"); err != nil {
		return "", err
	}
	list, err := getSmall(ctx, client, d.Sums, maxSumsBytes)
	if err != nil {
		return "", fmt.Errorf("fetching the publisher's checksums: %w", err)
	}
	sum, err := findSum(list, d.Hash, path.Base(u.Path))
	if err != nil {
		return "", fmt.Errorf("checksums at %s: %w", d.Sums, err)
	}
	return d.Hash + ":" + sum, nil
}
