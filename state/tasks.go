package state

import (
	"time"

	"mallee/cloud"
)

// A task is wished by AddTask, given up by CancelTask (both by the API) and over
// with FinishTask (by the loops). Each tells the node that does it.

// AddTask wishes for a task to be done.
func AddTask(tx *Tx, t cloud.Task) {
	Tasks.Put(tx, t)
	poke(tx, t.Node)
}

// CancelTask asks the node to give a task up; false says that it is over, or was
// cancelled before.
func CancelTask(tx *Tx, t cloud.Task, now time.Time) bool {
	if !t.FinishedAt.IsZero() || !t.CancelledAt.IsZero() {
		return false
	}
	t.CancelledAt = now
	Tasks.Put(tx, t)
	poke(tx, t.Node)
	return true
}

// FinishTask notes how a task ended, Failed and Made being set; the node forgets
// it then.
func FinishTask(tx *Tx, t cloud.Task, now time.Time) {
	t.FinishedAt = now
	Tasks.Put(tx, t)
	TaskObservations.Delete(tx, t.ID)
	poke(tx, t.Node)
}
