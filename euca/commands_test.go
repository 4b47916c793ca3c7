package euca

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"mallee/wire/sigv4"
)

var update = flag.Bool("update", false, "write what is printed into testdata/commands")

// player is a cloud that answers by recorded replies, and writes down what it
// was asked. It believes no signature that doesn't verify.
type player struct {
	t    *testing.T
	here string // the package's folder
	*httptest.Server

	mu      sync.Mutex // guards what follows
	replies []string   // the next replies' names; where there are none, a reply has its action's name
	asked   []string
	address string // stands for the address of an import's manifest in replies
}

func newPlayer(t *testing.T) *player {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	p := &player{t: t, here: here}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func (p *player) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	lookup := func(key, _ string) (string, bool) { return "secret", key == "AKIX" }
	if _, err := sigv4.Verify(r, body, lookup, time.Now(), sigv4.Options{Services: []string{"ec2"}}); err != nil {
		p.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Version") != "2016-11-15" {
		p.t.Errorf("request %q: %v", body, err)
	}
	action := form.Get("Action")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, said(form))
	name := action
	if len(p.replies) > 0 {
		name, p.replies = p.replies[0], p.replies[1:]
	}
	if name == "refused" {
		w.WriteHeader(http.StatusBadRequest)
	}
	reply, err := os.ReadFile(filepath.Join(p.here, "testdata", "replies", name+".xml"))
	if err != nil {
		reply = fmt.Appendf(nil, "<%sResponse><requestId>r</requestId><return>true</return></%sResponse>", action, action)
	}
	if p.address != "" {
		reply = bytes.ReplaceAll(reply, []byte("https://example.com/m.xml"), []byte(strings.ReplaceAll(p.address, "&", "&amp;")))
	}
	w.Write(reply)
}

// said is a request in a line.
func said(form url.Values) string {
	line := form.Get("Action")
	form.Del("Action")
	form.Del("Version")
	for _, name := range sortedKeys(form) {
		line += fmt.Sprintf(" %s=%s", name, strings.Join(form[name], ","))
	}
	return line
}

func sortedKeys(form url.Values) []string {
	var names []string
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// use the player's cloud, and no other that this host knows.
func (p *player) use() {
	alone(p.t)
	p.t.Setenv("EC2_URL", p.URL+"/services/compute")
	p.t.Setenv("AWS_ACCESS_KEY_ID", "AKIX")
	p.t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
}

// alone takes away all that this host says of clouds.
func alone(t *testing.T) {
	for _, name := range []string{
		"EC2_URL", "S3_URL", "EC2_ACCESS_KEY", "EC2_SECRET_KEY", "EC2_SECURITY_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY",
		"AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CREDENTIAL_FILE",
		"AWS_DEFAULT_REGION", "EUCA_DEFAULT_REGION", "EUCA_REGION", "EC2_USER_ID", "EC2_ACCOUNT_NUMBER", "EC2_CERT", "EC2_PRIVATE_KEY",
		"EUCALYPTUS_CERT",
	} {
		t.Setenv(name, "")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_DATA_HOME", home)
	t.Setenv("EUCA_CONFIG_PATH", filepath.Join(home, "*.ini"))
}

// exchange is a command of a transcript.
type exchange struct {
	before  []string // comments and blank lines
	line    string   // what is typed
	replies []string // the replies' names, where they aren't their actions'
}

// TestTranscripts runs the commands of testdata/commands. A line "$ …" is typed,
// "< …" names recorded replies, "> …" is asked of the cloud, "! …" is the
// error's line, and what follows is printed; → stands for a TAB there.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/commands/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := newPlayer(t)
			p.use()
			var got strings.Builder
			for _, e := range exchanges(string(text)) {
				p.play(e, &got)
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got.String() != string(text) && !*update {
				t.Errorf("%s tells otherwise; see -update. It is:\n%s", file, got.String())
			}
		})
	}
}

func exchanges(text string) (all []exchange) {
	var before []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "$ "):
			all = append(all, exchange{before: before, line: line[2:]})
			before = nil
		case strings.HasPrefix(line, "< "):
			all[len(all)-1].replies = strings.Fields(line[2:])
		case strings.HasPrefix(line, "# ") || line == "#" || len(all) == 0:
			before = append(before, line)
		}
	}
	return all
}

func (p *player) play(e exchange, to *strings.Builder) {
	p.asked, p.replies = nil, slices.Clone(e.replies)
	out, note, err := typed(p.t, e.line)
	if len(e.before) > 0 && to.Len() > 0 {
		to.WriteString("\n")
	}
	for _, line := range e.before {
		to.WriteString(line + "\n")
	}
	to.WriteString("$ " + e.line + "\n")
	if e.replies != nil {
		to.WriteString("< " + strings.Join(e.replies, " ") + "\n")
	}
	for _, line := range p.asked {
		to.WriteString("> " + line + "\n")
	}
	if err != nil {
		to.WriteString("! " + err.Error() + "\n")
	}
	if note != "" {
		p.t.Errorf("%s: said %q", e.line, note)
	}
	to.WriteString(strings.ReplaceAll(out, "\t", "→"))
}

// typed runs what is typed as a command, and returns the error as its line.
func typed(t *testing.T, line string) (out, note string, err error) {
	t.Helper()
	root := Command(&cobra.Command{Use: "up"})
	var o, e strings.Builder
	root.SetOut(&o)
	root.SetErr(&e)
	root.SetIn(strings.NewReader("what was piped in"))
	root.SetArgs(commandLine(root, append([]string{"/usr/bin/" + words(line)[0]}, words(line)[1:]...)))
	cmd, err := root.ExecuteContextC(t.Context())
	if err != nil {
		err = fmt.Errorf("%s", complaint(cmd, err))
	}
	return o.String(), e.String(), err
}

// words of a line; what is between single quotes is part of a word.
func words(line string) (all []string) {
	word, quoted, some := "", false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, some = !quoted, true
		case r == ' ' && !quoted:
			if some {
				all = append(all, word)
			}
			word, some = "", false
		default:
			word, some = word+string(r), true
		}
	}
	if some {
		all = append(all, word)
	}
	return all
}

// Every command asks only for parameters that it says, has help, and refuses
// what it doesn't know.
func TestEveryCommand(t *testing.T) {
	newPlayer(t).use()
	seen := map[string]bool{}
	for _, c := range eucaCommands() {
		if seen[c.name] || c.short == "" || c.run == nil {
			t.Errorf("euca-%s is there twice, or has no description or run", c.name)
		}
		seen[c.name] = true
		out, _, err := typed(t, prefix+c.name+" --help")
		if err != nil || !strings.Contains(out, c.short) || !strings.Contains(out, "--region") {
			t.Errorf("euca-%s --help: %v\n%s", c.name, err, out)
		}
		if out, _, err := typed(t, prefix+c.name+" --version"); err != nil || !strings.Contains(out, Version) {
			t.Errorf("euca-%s --version: %q, %v", c.name, out, err)
		}
		_, _, err = typed(t, prefix+c.name+" --nonsense")
		if err == nil || !strings.HasPrefix(err.Error(), prefix+c.name+": error: ") {
			t.Errorf("euca-%s --nonsense: %v", c.name, err)
		}
	}
}
