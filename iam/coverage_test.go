package iam

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/iam-coverage.md anew")

// TestCoverageDocument holds docs/iam-coverage.md to the table of actions. Where
// it fails: go test ./iam -run TestCoverageDocument -update
func TestCoverageDocument(t *testing.T) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# What of IAM and STS is covered\n\nGenerated from the table of actions (`iam/actions.go`) by `go test ./iam -run TestCoverageDocument -update`.\n\n%d actions. Of each, these parameters are honoured; `N` stands for the numbers of a list. Any other parameter is\nrefused by name.\n", len(Covered()))
	for _, c := range Covered() {
		fmt.Fprintf(&b, "\n## %s:%s\n\n- %s\n", c.Service, c.Action, map[bool]string{true: "writes", false: "reads"}[c.Writes])
		if len(c.Parameters) > 0 {
			fmt.Fprintf(&b, "- parameters: `%s`\n", strings.Join(c.Parameters, "`, `"))
		}
	}
	path := filepath.Join("..", "docs", "iam-coverage.md")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("docs/iam-coverage.md is not what the table of actions says (%v); write it anew with -update", err)
	}
}
