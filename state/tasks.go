package state

import (
	"time"

	"mallee/cloud"
)

// A task is wished by AddTask, given up by CancelTask (both by the API) and over
// with FinishTask (by the loops). Each tells the node that does it.

// TaskRoom is the kind of the guards that count an account's unfinished tasks.
const TaskRoom = "tasks"

// AddTask wishes for a task to be done, and returns how many unfinished ones the
// account has then.
func AddTask(tx *Tx, t cloud.Task) (unfinished int64) {
	Tasks.Put(tx, t)
	poke(tx, t.Node)
	return tx.Add(TaskRoom, string(t.Account), 1)
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

// FinishTask notes how an unfinished task ended, Failed and Made being set; the
// node forgets it then.
func FinishTask(tx *Tx, t cloud.Task, now time.Time) {
	t.FinishedAt = now
	Tasks.Put(tx, t)
	if Count(tx, TaskRoom, string(t.Account)) > 0 { // tasks of the first programs weren't counted
		tx.Add(TaskRoom, string(t.Account), -1)
	}
	TaskObservations.Delete(tx, t.ID)
	poke(tx, t.Node)
}
