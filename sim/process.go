package sim

import (
	"errors"
	"os"
	"path/filepath"

	"mallee/link"
)

// onNode does a piece of the node's work, and starts its process anew where it
// died in it.
func (w *World) onNode(what string, do func()) {
	w.say("node: %s", what)
	defer func() {
		died := recover()
		if died == nil {
			return
		}
		var of death
		if err, ok := died.(error); !ok || !errors.As(err, &of) {
			panic(died)
		}
		w.say("node: dies %s", of.at)
		w.restartNode()
	}()
	do()
}

// onCloud does a piece of the cloud's work; false where its process died in it.
func (w *World) onCloud(what string, do func()) bool {
	w.say("cloud: %s", what)
	do()
	if w.cloudDies {
		w.restartCloud()
		return false
	}
	return true
}

// restartNode and restartCloud know no faults: a process that dies while it
// starts is one that starts later.
func (w *World) restartNode() {
	w.say("node: starts anew")
	if w.Break == NotDurable {
		os.Remove(filepath.Join(w.Dir, "assignment.json"))
	}
	w.calmly(w.openNode)
}

func (w *World) restartCloud() {
	w.say("cloud: starts anew")
	w.cloudDies = false
	w.memory.Crash()
	w.calmly(w.openCloud)
}

func (w *World) calmly(do func() error) {
	was := w.faults.on
	w.faults.on = false
	defer func() { w.faults.on = was }()
	if err := do(); err != nil {
		panic("sim: a process can't start: " + err.Error())
	}
}

func (w *World) nodePass() { w.onNode("pass", func() { w.node.Step(w.ctx) }) }

func (w *World) cloudPass() {
	w.onCloud("pass", func() {
		if err := w.controller.Step(w.ctx); err != nil {
			w.say("cloud: %v", err)
		}
	})
}

// inFlight bounds the messages under way, each way.
const inFlight = 8

func (w *World) nodeReports() {
	report, _ := w.node.Report()
	w.say("node: reports %v under %d", report.Machines, report.Generation)
	if w.Break == AbsenceCounts {
		report.Generation = 1 << 60
	}
	if len(w.toCloud) < inFlight {
		w.toCloud = append(w.toCloud, report)
	}
}

// deliverReport gives the cloud one of the reports under way, and sends its
// answer off.
func (w *World) deliverReport() {
	report, ok := pick(w, &w.toCloud)
	if !ok {
		return
	}
	w.onCloud("takes a report in", func() {
		if err := w.controller.TakeIn(w.ctx, report); err != nil {
			w.say("cloud: %v", err)
			return
		}
		if len(w.toNode) < inFlight {
			w.toNode = append(w.toNode, w.controller.Assignment(nodeID))
		}
	})
}

func (w *World) deliverAssignment() {
	a, ok := pick(w, &w.toNode)
	if !ok {
		return
	}
	if now, _ := w.node.Report(); w.Break == OldAssignments && a.Generation < now.Generation {
		a.Generation = now.Generation + 1
	}
	w.accept(a)
}

func (w *World) accept(a link.Assignment) {
	w.onNode("gets an assignment", func() {
		if err := w.node.Accept(a); err != nil {
			w.say("node: %v", err)
		}
	})
}

func (w *World) loseMessage() {
	w.say("a message is lost")
	if w.rand.IntN(2) == 0 {
		take(w, &w.toCloud)
	} else {
		take(w, &w.toNode)
	}
}

// pick one of the messages, whichever; one in four stays, to come again.
func pick[T any](w *World, bag *[]T) (m T, ok bool) {
	if len(*bag) > 0 && w.rand.IntN(4) == 0 {
		return (*bag)[w.rand.IntN(len(*bag))], true
	}
	return take(w, bag)
}

func take[T any](w *World, bag *[]T) (m T, ok bool) {
	if len(*bag) == 0 {
		return m, false
	}
	i := w.rand.IntN(len(*bag))
	m = (*bag)[i]
	*bag = append((*bag)[:i:i], (*bag)[i+1:]...)
	return m, true
}
