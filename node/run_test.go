package node

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mallee/cloud"
	"mallee/link"
)

// hub is a cloud that keeps the last report, and holds a call open until it has
// a newer assignment, as the contract of link.Cloud has it.
type hub struct {
	mu     sync.Mutex // guards what follows
	next   link.Assignment
	last   link.Report
	calls  int
	refuse error
	news   chan struct{} // closed and replaced when next changes
}

func (h *hub) Sync(ctx context.Context, r link.Report) (link.Assignment, error) {
	h.mu.Lock()
	h.last = r
	h.calls++
	h.mu.Unlock()
	for {
		h.mu.Lock()
		a, news, err := h.next, h.news, h.refuse
		h.mu.Unlock()
		if err != nil || a.Generation > r.Generation {
			return a, err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return link.Assignment{}, ctx.Err()
		}
	}
}

func (h *hub) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	close(h.news)
	h.news = make(chan struct{})
}

func (h *hub) assign(list ...cloud.Instance) {
	h.set(func() { h.next = link.Assignment{Node: "node-1", Generation: h.next.Generation + 1, Instances: list} })
}

// phases of the machines in the last report, counted.
func (h *hub) phases() map[cloud.Phase]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := map[cloud.Phase]int{}
	for _, m := range h.last.Machines {
		count[m.Phase]++
	}
	return count
}

// inRun runs a node in a bubble of time, for as long as do takes.
func inRun(t *testing.T, do func(*rig, *hub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r, h := newRig(t), &hub{news: make(chan struct{})}
		r.Node.Cloud, r.Node.Now, r.Node.cache.now = h, time.Now, time.Now
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { r.Node.Run(ctx) })
		do(r, h)
		cancel()
		run.Wait()
	})
}

func (h *hub) want(t *testing.T, when string, phase cloud.Phase, n int) {
	t.Helper()
	synctest.Wait()
	if got := h.phases(); got[phase] != n || n > 0 && len(got) != 1 || n == 0 && len(got) != 0 {
		t.Fatalf("%s: reported %v, want %d %s", when, got, n, phase)
	}
}

// More machines than any queue holds are all up at once, and gone at once: not
// at the next tick.
func TestRunMany(t *testing.T) {
	inRun(t, func(r *rig, h *hub) {
		var many []cloud.Instance
		for n := range 1500 {
			many = append(many, instance(n+1))
		}
		begin := time.Now()
		h.assign(many...)
		h.want(t, "assigned", cloud.PhaseUp, len(many))
		h.assign()
		h.want(t, "not assigned any more", "", 0)
		if d := time.Since(begin); d != 0 {
			t.Errorf("it took %s", d)
		}
		if got := r.count("unpack"); got != 1 {
			t.Errorf("the image was unpacked %d times", got)
		}
		r.wantNothing()
	})
}

func TestRunRestartsAndReports(t *testing.T) {
	inRun(t, func(r *rig, h *hub) {
		h.assign(instance(1))
		h.want(t, "assigned", cloud.PhaseUp, 1)
		time.Sleep(2 * settleTime)
		r.world.Crash(r.machineDir("i-00000001"))
		h.want(t, "crashed", cloud.PhaseUp, 1)
		if got := r.count("start"); got != 2 {
			t.Errorf("%d starts", got)
		}
		r.world.PowerOff(r.machineDir("i-00000001"))
		h.want(t, "powered off", cloud.PhaseExited, 1)
	})
}

// A failed attempt is made again when its time comes, and a failure is
// reported as soon as it is certain.
func TestRunRetries(t *testing.T) {
	inRun(t, func(r *rig, h *hub) {
		r.setFail("start", errors.New("not now"))
		h.assign(instance(1))
		h.want(t, "assigned", cloud.PhasePreparing, 1)
		time.Sleep(time.Second)
		h.want(t, "after a second", cloud.PhasePreparing, 1)
		if got := r.count("start"); got != 2 {
			t.Errorf("%d starts after a second", got)
		}
		time.Sleep(2 * time.Second)
		h.want(t, "after three seconds", cloud.PhaseFailed, 1)
	})
}

func TestRunResetsAGuestInTime(t *testing.T) {
	inRun(t, func(r *rig, h *hub) {
		r.boots = stubborn
		h.assign(instance(1))
		h.want(t, "assigned", cloud.PhaseUp, 1)
		i := instance(1)
		i.Reboots = 1
		h.assign(i)
		time.Sleep(powerDownGrace - time.Second)
		synctest.Wait()
		if got := r.count("reset"); got != 0 {
			t.Error("it was reset before its time")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.count("reset"); got != 1 {
			t.Errorf("%d resets", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := r.count("reset"); got != 1 {
			t.Errorf("%d resets after an hour", got)
		}
	})
}

// A cloud that refuses is asked again in a second, not at once.
func TestRunWithoutACloud(t *testing.T) {
	inRun(t, func(r *rig, h *hub) {
		for _, err := range []error{errors.New("no route to the cloud"), context.Canceled} {
			h.set(func() { h.refuse, h.calls = err, 0 })
			time.Sleep(10 * time.Second)
			synctest.Wait()
			h.mu.Lock()
			if h.calls < 9 || h.calls > 12 {
				t.Errorf("%v: %d calls in ten seconds", err, h.calls)
			}
			h.mu.Unlock()
		}
		h.set(func() { h.refuse = nil })
		time.Sleep(time.Second)
		h.assign(instance(1))
		h.want(t, "the cloud is back", cloud.PhaseUp, 1)
	})
}

// Terminated while it is launched: the worker who has it gives it back, at once
// where the step that it is in can be abandoned.
func TestRunTakesBackWhatIsBeingLaunched(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		inRun(t, func(r *rig, h *hub) {
			hold := make(chan struct{})
			r.Node.Images = slowImages{r.Node.Images, hold, deaf}
			h.assign(instance(1))
			h.want(t, "unpacking", cloud.PhasePreparing, 1)
			h.assign()
			if deaf {
				h.want(t, "still unpacking", cloud.PhasePreparing, 1)
				h.assign(instance(1))
				h.assign()
				close(hold)
			}
			h.want(t, "given back", "", 0)
			r.wantNothing()
		})
	}
}

// Taken back and given again while it is removed: it is started anew, by one
// worker.
func TestRunGivenAgainWhileRemoved(t *testing.T) {
	inRun(t, func(r *rig, h *hub) {
		for range 20 {
			h.assign(instance(1))
			h.want(t, "given", cloud.PhaseUp, 1)
			h.assign()
			h.assign(instance(1))
			h.want(t, "given again", cloud.PhaseUp, 1)
			h.assign()
			h.want(t, "taken back", "", 0)
		}
		r.wantNothing()
	})
}

// Two wait for one image, and the one who unpacks it is terminated: the other
// goes on at once, and has seen no failure.
func TestRunOneOfTwoIsTakenBackWhileUnpacking(t *testing.T) {
	inRun(t, func(r *rig, h *hub) {
		hold := make(chan struct{})
		r.Node.Images = slowImages{r.Node.Images, hold, false}
		h.assign(instance(1))
		h.want(t, "the first unpacks", cloud.PhasePreparing, 1)
		h.assign(instance(1), instance(2))
		h.want(t, "the second waits", cloud.PhasePreparing, 2)
		h.assign(instance(2))
		h.want(t, "the first is taken back", cloud.PhasePreparing, 1)
		if m := r.first(); m.Instance != "i-00000002" || m.Reason != (cloud.Reason{}) {
			t.Errorf("reported %+v", m)
		}
		close(hold)
		h.want(t, "unpacked", cloud.PhaseUp, 1)
	})
}

type slowImages struct {
	Images
	hold chan struct{}
	deaf bool // to being told that it is over
}

func (s slowImages) Unpack(ctx context.Context, ref cloud.ImageRef, dst io.Writer, progress func(done, total int64)) error {
	over := ctx.Done()
	if s.deaf {
		over = nil
	}
	select {
	case <-s.hold:
	case <-over:
		return ctx.Err()
	}
	return s.Images.Unpack(ctx, ref, dst, progress)
}
