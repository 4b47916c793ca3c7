package sim

import (
	"encoding/xml"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"

	"mallee/cloud"
	"mallee/hypervisor"
	"mallee/wire"
)

// seeded reads bytes of a world's chance.
type seeded struct{ *rand.Rand }

func (s seeded) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s.Uint32())
	}
	return len(p), nil
}

// call an action of EC2 as the user; nil where there was no answer, or a refusal.
func (w *World) call(action string, params map[string]string) []byte {
	form := wire.Form{"Action": action, "Version": wire.NewestVersion}
	for k, v := range params {
		form[k] = v
	}
	reply := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, "/", nil)
	answered := w.onCloud(action, func() { w.ec2.Handle(reply, request, form, w.user, "sim") })
	if !answered || reply.Code != http.StatusOK {
		w.say("user: %s answers %d %s", action, reply.Code, reply.Body)
		return nil
	}
	return reply.Body.Bytes()
}

func (w *World) userRuns() {
	reply := w.call("RunInstances", map[string]string{
		"ImageId": []string{"emi-00000001", "emi-00000002"}[w.rand.IntN(2)], "InstanceType": "m1.small",
		"MinCount": "1", "MaxCount": strconv.Itoa(1 + w.rand.IntN(3)),
	})
	if reply == nil {
		return
	}
	var r struct {
		IDs []cloud.InstanceID `xml:"instancesSet>item>instanceId"`
	}
	if err := xml.Unmarshal(reply, &r); err != nil || len(r.IDs) == 0 {
		panic("sim: RunInstances answered " + string(reply))
	}
	w.say("user: is told of %v", r.IDs)
	for _, id := range r.IDs {
		w.promised[id] = true
	}
}

// anyInstance of those that were promised, whatever became of it.
func (w *World) anyInstance() (string, bool) {
	var ids []string
	for id := range w.promised {
		ids = append(ids, string(id))
	}
	if len(ids) == 0 {
		return "", false
	}
	slices.Sort(ids)
	return ids[w.rand.IntN(len(ids))], true
}

func (w *World) userTerminates() {
	if id, ok := w.anyInstance(); ok {
		w.call("TerminateInstances", map[string]string{"InstanceId.1": id})
	}
}

func (w *World) userReboots() {
	if id, ok := w.anyInstance(); ok {
		w.call("RebootInstances", map[string]string{"InstanceId.1": id})
	}
}

// guestActs by itself: it powers off, or its process dies.
func (w *World) guestActs() {
	var dirs []string
	for _, m := range w.machines.Machines() {
		if w.status(m) == hypervisor.Running {
			dirs = append(dirs, m.Dir)
		}
	}
	if len(dirs) == 0 {
		return
	}
	dir := dirs[w.rand.IntN(len(dirs))]
	if w.rand.IntN(2) == 0 && !strings.Contains(dir, "/keepers/") {
		w.say("a guest powers off")
		w.machines.PowerOff(dir)
	} else {
		w.say("a machine dies")
		w.machines.Crash(dir)
	}
}

// status of a machine as the host has it, seen without faults.
func (w *World) status(m hypervisor.Machine) hypervisor.Status {
	status, err := w.eyes.Observe(w.ctx, m.Dir)
	if err != nil {
		panic("sim: " + err.Error())
	}
	return status
}
