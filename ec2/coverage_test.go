package ec2

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCoverageDocument holds docs/coverage.md to the table of actions. Where it
// fails: go test ./ec2 -run TestCoverageDocument -update
func TestCoverageDocument(t *testing.T) {
	path := filepath.Join("..", "docs", "coverage.md")
	want := coverageDocument(Covered())
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/coverage.md is not what the table of actions says (%v); write it anew with -update", err)
	}
	for _, c := range Covered() {
		if !bytes.Contains(got, []byte("\n## "+c.Action+"\n")) {
			t.Errorf("docs/coverage.md does not have %s", c.Action)
		}
	}
}

func coverageDocument(all []Coverage) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# What of EC2 is covered

Generated from the table of actions (`+"`ec2/actions.go`"+`) by `+"`go test ./ec2 -run TestCoverageDocument -update`"+`.

%d actions. Of each, these parameters and filters are honoured; `+"`N`"+` stands for the numbers of a list. Any other
parameter is refused by name, as is a value that isn't served. Every action takes DryRun.
`, len(all))
	for _, c := range all {
		c.describe(&b)
	}
	return b.Bytes()
}

func (c *Coverage) describe(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## %s\n\n", c.Action)
	kind := "reads"
	if c.Writes {
		kind = "writes"
	}
	if c.Resource != "" {
		kind += "; about: " + c.Resource
	}
	fmt.Fprintf(b, "- %s\n", kind)
	if c.MaxResults[1] > 0 {
		fmt.Fprintf(b, "- pages of %d to %d\n", c.MaxResults[0], c.MaxResults[1])
	}
	for _, list := range []struct {
		of    string
		names []string
	}{{"parameters", c.Parameters}, {"filters", c.Filters}, {"TagSpecification for", c.Taggable}} {
		if len(list.names) > 0 {
			fmt.Fprintf(b, "- %s: %s\n", list.of, "`"+strings.Join(list.names, "`, `")+"`")
		}
	}
}
