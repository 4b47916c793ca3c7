package ec2

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// obliging is a node and the loops in one: before each look at the instances
// whatever is wished of them has come true.
type obliging struct{ *aCloud }

func (o obliging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := wire.ReadBody(r, wire.DefaultLimit)
	if err != nil {
		o.tb.Error(err)
	}
	form, err := wire.Parse(r, body)
	if err != nil {
		o.tb.Error(err)
	}
	if action := form.Get("Action"); action == "DescribeInstances" || action == "DescribeInstanceStatus" {
		o.oblige()
	}
	o.Handle(w, r, form, o.user, "11111111-2222-4333-8444-555555555555")
}

func (o obliging) oblige() {
	o.write(func(tx *state.Tx) {
		for i := range state.Instances.All(tx) {
			seen := cloud.Observation{Instance: i.ID, Phase: cloud.PhaseUp, UpWish: i.Wishes, At: o.now}
			if i.Wish == cloud.WishTerminated {
				seen.Phase = cloud.PhaseGone
				state.Release(tx, i)
			}
			state.Observations.Put(tx, seen)
			o.console[i.ID] = "hello from the guest"
		}
	})
}

// TestBoto3 has the client that most people use do what most people do.
func TestBoto3(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not there to run boto3")
	}
	if exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("boto3 is not there")
	}
	c := ready(t)
	server := httptest.NewServer(obliging{c})
	defer server.Close()
	out, err := exec.Command(python, filepath.Join("testdata", "client.py"), server.URL, hvmImage, filepath.Join("testdata", "keys", "rsa.openssh")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s\n%s", err, out, c.log.String())
	}
}
