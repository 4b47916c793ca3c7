package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// euca types euca-commands, as links that `mallee install-commands` has made.
type euca struct {
	dir string
	env []string
}

func eucaOf(t *testing.T, c *cloud.Cloud) euca {
	t.Helper()
	env, err := c.Environ()
	if err != nil {
		t.Fatal(err)
	}
	e := euca{filepath.Join(t.TempDir(), "bin"), append(env, "HOME="+t.TempDir())}
	if out, err := exec.CommandContext(within(t, soon), c.Binary, "install-commands", e.dir).CombinedOutput(); err != nil {
		t.Fatalf("install-commands: %v: %s", err, out)
	}
	return e
}

// run a command: euca-NAME and its arguments.
func (e euca) run(t *testing.T, args ...string) (out, said string, status int) {
	t.Helper()
	cmd := exec.CommandContext(within(t, time.Minute), filepath.Join(e.dir, args[0]), args[1:]...)
	cmd.Env = e.env
	var o, s bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &s
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), s.String(), cmd.ProcessState.ExitCode()
}

// records are the lines of a command that must succeed, in fields.
func (e euca) records(t *testing.T, args ...string) (all [][]string) {
	t.Helper()
	out, said, status := e.run(t, args...)
	if status != 0 || said != "" {
		t.Fatalf("%s ended with %d: %s", strings.Join(args, " "), status, said)
	}
	for line := range strings.Lines(out) {
		all = append(all, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return all
}

// one record of that name, which has to be there.
func one(t *testing.T, all [][]string, name string) []string {
	t.Helper()
	for _, r := range all {
		if r[0] == name {
			return r
		}
	}
	t.Fatalf("no %s in %q", name, all)
	return nil
}

// TestEucaCommands is what somebody types who knows Eucalyptus.
func TestEucaCommands(t *testing.T) {
	w := theWorld(t)
	e := eucaOf(t, w.Cloud)
	name := folderOf(t)
	key := filepath.Join(t.TempDir(), "key")

	made := one(t, e.records(t, "euca-create-keypair", name, "-f", key), "KEYPAIR")
	if print := e.records(t, "euca-fingerprint-key", key); print[0][0] != made[2] || made[1] != name {
		t.Errorf("the key's fingerprint is %q, and the cloud says %q", print, made)
	}
	zone := one(t, e.records(t, "euca-describe-availability-zones"), "AVAILABILITYZONE")[1]

	ran := e.records(t, "euca-run-instances", w.hello, "-n", "2", "-k", name, "-t", "m1.small", "-z", zone, "-d", "from euca2ools")
	var ids []string
	for _, r := range ran {
		if len(r) != 33 && r[0] == "INSTANCE" {
			t.Errorf("INSTANCE has %d fields instead of 33: %q", len(r), r)
		}
		if r[0] == "INSTANCE" {
			ids = append(ids, r[1])
		}
	}
	if reservation := one(t, ran, "RESERVATION"); len(ids) != 2 || !strings.HasPrefix(reservation[1], "r-") || len(reservation) != 4 {
		t.Fatalf("run-instances printed %q", ran)
	}
	t.Cleanup(func() { terminate(t, w.Cloud, ids...) })
	await(t, w.Cloud, types.InstanceStateNameRunning, ids...)
	for _, id := range ids {
		e.records(t, "euca-create-tags", id, "--tag", "Name="+name)
	}
	e.showInstances(t, w, ids, name, zone)
	e.showImages(t, w)

	ended := e.records(t, append([]string{"euca-terminate-instances"}, ids...)...)
	if len(ended) != 2 || ended[0][0] != "INSTANCE" || len(ended[0]) != 4 {
		t.Errorf("terminate-instances printed %q", ended)
	}
	if gone := e.records(t, "euca-delete-keypair", name); gone[0][1] != name {
		t.Errorf("delete-keypair printed %q", gone)
	}
}

func (e euca) showInstances(t *testing.T, w *world, ids []string, name, zone string) {
	t.Helper()
	shown := e.records(t, "euca-describe-instances", "--filter", "tag:Name="+name, "--filter", "instance-state-name=running")
	i := one(t, shown, "INSTANCE")
	if i[2] != w.hello || i[5] != "running" || i[6] != name || i[9] != "m1.small" || i[11] != zone || !strings.HasPrefix(i[16], "127.") {
		t.Errorf("describe-instances printed %q", i)
	}
	if tag := one(t, shown, "TAG"); strings.Join(tag, " ") != "TAG instance "+i[1]+" Name "+name {
		t.Errorf("the tag is %q", tag)
	}
	err := cloud.Poll(within(t, bootTime), "the guest's word", func() error {
		out, said, _ := e.run(t, "euca-get-console-output", ids[0])
		if strings.HasPrefix(out, ids[0]+"\n") && strings.Contains(out, helloLine) {
			return nil
		}
		return fmt.Errorf("the console says %q, %s", out, said)
	})
	if err != nil {
		t.Error(err)
	}
	out, _, _ := e.run(t, "euca-describe-instances", ids[0], "--output", "json")
	var asked struct {
		ReservationSet []struct {
			InstancesSet []struct{ InstanceID, ImageID string }
		}
	}
	if err := json.Unmarshal([]byte(out), &asked); err != nil || len(asked.ReservationSet) != 1 || asked.ReservationSet[0].InstancesSet[0].ImageID != w.hello {
		t.Errorf("as JSON: %s, %v", out, err)
	}
}

func (e euca) showImages(t *testing.T, w *world) {
	t.Helper()
	shown := map[string][]string{}
	for _, r := range e.records(t, "euca-describe-images", w.hvm, w.pv, w.kernel, w.ramdisk) {
		if r[0] == "IMAGE" {
			shown[r[1]] = r
		}
	}
	for id, want := range map[string]string{w.hvm: "machine hvm", w.pv: "machine paravirtual", w.kernel: "kernel", w.ramdisk: "ramdisk"} {
		r := shown[id]
		if len(r) != 14 || r[4] != "available" || r[5] != "private" || !strings.HasPrefix(r[7]+" "+r[12], want) {
			t.Errorf("%s is a %s, and describe-images printed %q", id, want, r)
		}
	}
	if pv := shown[w.pv]; len(pv) == 14 && (pv[8] != w.kernel || pv[9] != w.ramdisk) {
		t.Errorf("the paravirtual image's kernel and ramdisk are %q", pv)
	}
}

// What a script sees that asks for what isn't there, or that asks nobody.
func TestEucaErrors(t *testing.T) {
	w := theWorld(t)
	e := eucaOf(t, w.Cloud)
	out, said, status := e.run(t, "euca-describe-images", "emi-00000000")
	if out != "" || status != 1 || !strings.HasPrefix(said, "euca-describe-images: error (InvalidAMIID.NotFound): ") || strings.Count(said, "\n") != 1 {
		t.Errorf("an image that isn't there: %d, %q, %q", status, out, said)
	}
	out, said, status = e.run(t, "euca-register", "nowhere/nothing.manifest.xml", "-n", "nothing")
	if out != "" || status != 1 || !strings.HasPrefix(said, "euca-register: error (") {
		t.Errorf("a manifest that isn't there: %d, %q, %q", status, out, said)
	}
	out, said, status = e.run(t, "euca-run-instances")
	if out != "" || status != 1 || said != "euca-run-instances: error: the argument IMAGE is missing\n" {
		t.Errorf("no image: %d, %q, %q", status, out, said)
	}
}

// Without a shell that has sourced eucarc, the configuration files name the
// cloud, or --data does.
func TestEucaConfiguration(t *testing.T) {
	w := theWorld(t)
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	e := eucaOf(t, w.Cloud)
	home := t.TempDir()
	e.env = append(cloud.Environ(), "HOME="+home, "XDG_DATA_HOME="+home)
	if _, said, status := e.run(t, "euca-describe-regions"); status != 1 || !strings.Contains(said, "no cloud is known") {
		t.Errorf("nothing names a cloud: %d, %s", status, said)
	}
	if r := one(t, e.records(t, "euca-describe-regions", "--data", w.Dir), "REGION"); r[1] != a.Region {
		t.Errorf("--data: the region is %q", r)
	}
	text := fmt.Sprintf("[region here]\nec2-url = %s/services/compute\n\n[user me]\nkey-id = %s\nsecret-key = %s\n", a.Endpoint, a.AccessKey, a.Secret)
	if err := os.MkdirAll(filepath.Join(home, ".euca"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".euca", "here.ini"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := one(t, e.records(t, "euca-describe-regions", "--region", "me@here"), "REGION"); r[1] != a.Region {
		t.Errorf("--region: the region is %q", r)
	}
	e.env = append(e.env, "EC2_URL="+a.Endpoint+"/services/Eucalyptus")
	if r := one(t, e.records(t, "euca-describe-regions", "-I", a.AccessKey, "-S", a.Secret), "REGION"); r[1] != a.Region {
		t.Errorf("-I and -S: the region is %q", r)
	}
}

// TestEucaImages follows an image from its manifest to its end.
func TestEucaImages(t *testing.T) {
	w := theWorld(t)
	e := eucaOf(t, w.Cloud)
	_, location := bundled(t, w.Cloud, emi.Hello(helloLine, 1<<20), emi.Options{})
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	id := one(t, e.records(t, "euca-register", location, "-n", folderOf(t), "-d", "by hand", "--virtualization-type", "hvm", "-b", "/dev/sdb=ephemeral0"), "IMAGE")[1]
	image := func() []string { return one(t, e.records(t, "euca-describe-images", id), "IMAGE") }
	if i := image(); i[2] != a.Account+"/"+folderOf(t) || i[5] != "private" {
		t.Errorf("registered: %q", i)
	}
	lines := func(args ...string) string {
		var all []string
		for _, r := range e.records(t, args...) {
			all = append(all, strings.Join(r, " "))
		}
		return strings.NewReplacer(id, "ID", a.Account, "ACCOUNT").Replace(strings.Join(all, "\n"))
	}
	for _, c := range []struct{ line, want string }{
		{"euca-describe-image-attribute ID --description", "description ID  by hand"},
		{"euca-describe-image-attribute ID -l", ""},
		{"euca-modify-image-attribute ID -l -a all -a ACCOUNT", "launchPermission ID ADD group all\nlaunchPermission ID ADD userId ACCOUNT"},
		{"euca-modify-image-attribute ID --description again", "description ID  again"},
		{"euca-describe-image-attribute ID --description", "description ID  again"},
		{"euca-modify-image-attribute ID -l -r ACCOUNT", "launchPermission ID REMOVE userId ACCOUNT"},
		{"euca-describe-image-attribute ID -l", "launchPermission ID group all"},
	} {
		if got := lines(strings.Fields(strings.NewReplacer("ID", id, "ACCOUNT", a.Account).Replace(c.line))...); got != c.want {
			t.Errorf("%s printed %q, want %q", c.line, got, c.want)
		}
	}
	if i := image(); i[5] != "public" {
		t.Errorf("for all: %q", i)
	}
	lines("euca-reset-image-attribute", id, "-l")
	if i := image(); i[5] != "private" {
		t.Errorf("reset: %q", i)
	}
	if got := lines("euca-deregister", id); got != "IMAGE ID" {
		t.Errorf("deregister printed %q", got)
	}
}

// TestEucaAsksAmazons reads the transcripts that package euca is held to: every
// parameter is one that EC2 has, and every recorded reply one that EC2 gives.
func TestEucaAsksAmazons(t *testing.T) {
	m := readModel(t)
	files, err := filepath.Glob(filepath.Join("..", "euca", "testdata", "commands", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`\.[0-9]+\b`)
	parameter := regexp.MustCompile(` ([A-Z][A-Za-z0-9.]*)=`)
	asked := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`(?m)^> (\w+)(.*)$`).FindAllStringSubmatch(string(text), -1) {
			for _, found := range parameter.FindAllStringSubmatch(line[2], -1) {
				asked++
				name := number.ReplaceAllString(found[1], ".N")
				if !m.takes(m.Operations[line[1]].Input.Shape, strings.Split(name, ".")) && !slices.Contains(eucalyptus, line[1]+" "+name) {
					t.Errorf("%s: EC2's %s has no parameter %s", file, line[1], name)
				}
			}
		}
	}
	if asked < 200 {
		t.Errorf("only %d parameters are asked: are the transcripts still written as this test reads them?", asked)
	}
	replies, err := filepath.Glob(filepath.Join("..", "euca", "testdata", "replies", "*.xml"))
	if err != nil || len(replies) < 30 {
		t.Errorf("%d replies, %v", len(replies), err)
	}
	for _, file := range replies {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		action := regexp.MustCompile(`<(\w+)Response[ >]`).FindStringSubmatch(string(text))
		if action != nil && filepath.Base(file) != "verbose.xml" { // that is Eucalyptus's own
			m.checkReply(t, file, action[1], string(text))
		}
	}
}
