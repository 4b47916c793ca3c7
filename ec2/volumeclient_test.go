package ec2

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/controller"
	"mallee/link"
	"mallee/state"
	"mallee/wire"
)

// dutiful nodes report, before each look at the cloud, that all they were assigned
// is as it should be. What they say goes through the loops.
type dutiful struct {
	*aCloud
	loops *controller.Controller
}

func (d dutiful) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := wire.ReadBody(r, wire.DefaultLimit)
	if err != nil {
		d.tb.Error(err)
	}
	form, err := wire.Parse(r, body)
	if err != nil {
		d.tb.Error(err)
	}
	if strings.HasPrefix(form.Get("Action"), "Describe") {
		d.report()
	}
	d.Handle(w, r, form, d.user, "11111111-2222-4333-8444-555555555555")
}

// report for all nodes, twice: what the first brings about may be a wish.
func (d dutiful) report() {
	for range 2 {
		for n := range state.Nodes.All(d.Store.View()) {
			r := link.Report{Node: n.ID, Zone: n.Zone, Capacity: n.Capacity}
			d.fulfil(d.loops.Assignment(n.ID), &r)
			if err := d.loops.TakeIn(d.tb.Context(), r); err != nil {
				d.tb.Error(err)
			}
		}
	}
}

// fulfil an assignment.
func (d dutiful) fulfil(a link.Assignment, r *link.Report) {
	r.Generation = a.Generation
	runs := map[cloud.InstanceID]bool{}
	for _, i := range a.Instances {
		runs[i.ID] = true
		r.Machines = append(r.Machines, link.Machine{Instance: i.ID, Wishes: i.Wishes, Phase: cloud.PhaseUp})
	}
	for _, v := range a.Volumes {
		if !v.Deleted.IsZero() {
			continue
		}
		said := link.Volume{Volume: v.ID, Phase: cloud.VolumeReady, SizeGiB: v.SizeGiB, Filled: 100}
		if v.Attachment != nil && v.Attachment.Detaching.IsZero() && runs[v.Attachment.Instance] {
			said.Attached = v.Attachment.Instance
		}
		r.Volumes = append(r.Volumes, said)
	}
	for _, s := range a.Snapshots {
		content := &cloud.Content{Manifest: strings.Repeat("5", 64), Size: int64(s.SizeGiB) << 30}
		r.Snapshots = append(r.Snapshots, link.Snapshot{Snapshot: s.ID, Taken: true, Content: content})
	}
}

// TestBoto3Volumes has the client that most people use wait for volumes,
// snapshots, stops and images as people do, through the real loops.
func TestBoto3Volumes(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not there to run boto3")
	}
	if exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("boto3 is not there")
	}
	c := ready(t).withSnapshots()
	c.write(func(tx *state.Tx) { state.Nodes.Delete(tx, "one-1") }) // nodes share no storage
	loops := controller.New(controller.Options{Store: c.Store, Now: func() time.Time { return c.now }, Log: slog.New(slog.DiscardHandler)})
	server := httptest.NewServer(dutiful{c, loops})
	defer server.Close()
	out, err := exec.Command(python, filepath.Join("testdata", "volumes.py"), server.URL, completeSnapshot).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s\n%s", err, out, c.log.String())
	}
	checkBooks(t, c)
}
