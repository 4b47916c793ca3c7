package state_test

import (
	"slices"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/state"
)

// TestTasks are a node's to do until they are finished, and counted as long.
func TestTasks(t *testing.T) {
	s := allocationStore(t)
	write := func(fn func(*state.Tx)) {
		t.Helper()
		allocationWrite(t, s, func(tx *state.Tx) error { fn(tx); return nil })
	}
	at := time.Unix(1_000_000, 0).UTC()
	one, two := cloud.Task{ID: "bun-1", Account: "1", Node: "n1"}, cloud.Task{ID: "bun-2", Account: "1", Node: "n2"}
	write(func(tx *state.Tx) {
		for _, id := range []cloud.NodeID{"n1", "n2"} {
			state.Nodes.Put(tx, cloud.Node{ID: id})
		}
	})
	generation := func(id cloud.NodeID) int64 {
		_, revision, _ := state.Nodes.Get(s.View(), id)
		return revision
	}
	check := func(when string, unfinished int64, toDo ...cloud.TaskID) {
		t.Helper()
		var got []cloud.TaskID
		for _, node := range []cloud.NodeID{"n1", "n2"} {
			for task := range state.TasksToDo.By(s.View(), node) {
				got = append(got, task.ID)
			}
		}
		if !slices.Equal(got, toDo) {
			t.Errorf("%s: to do are %v, want %v", when, got, toDo)
		}
		if n := state.Count(s.View(), state.TaskRoom, "1"); n != unfinished {
			t.Errorf("%s: %d are counted, want %d", when, n, unfinished)
		}
	}
	before := generation("n2")
	write(func(tx *state.Tx) {
		if n := state.AddTask(tx, one); n != 1 {
			t.Errorf("the first of the account is its number %d", n)
		}
		if n := state.AddTask(tx, two); n != 2 {
			t.Errorf("the second of the account is its number %d", n)
		}
		if n := state.AddTask(tx, cloud.Task{ID: "bun-3", Account: "2", Node: "n3"}); n != 1 {
			t.Errorf("the first of another account is its number %d", n)
		}
	})
	check("added", 2, "bun-1", "bun-2")
	added := generation("n2")
	if added == before {
		t.Error("the node is not told of a new task")
	}
	write(func(tx *state.Tx) {
		if !state.CancelTask(tx, two, at) {
			t.Error("it is not over, and can't be cancelled")
		}
	})
	cancelled, _, _ := state.Tasks.Get(s.View(), "bun-2")
	if !cancelled.CancelledAt.Equal(at) || generation("n2") == added {
		t.Errorf("cancelled: %+v", cancelled)
	}
	check("cancelled", 2, "bun-1", "bun-2")
	told := generation("n2")
	write(func(tx *state.Tx) {
		if state.CancelTask(tx, *cancelled, at.Add(time.Hour)) {
			t.Error("it was cancelled twice")
		}
	})
	if again, _, _ := state.Tasks.Get(s.View(), "bun-2"); !again.CancelledAt.Equal(at) || generation("n2") != told {
		t.Errorf("cancelled again: %+v", again)
	}
	write(func(tx *state.Tx) {
		state.TaskObservations.Put(tx, cloud.TaskObservation{Task: "bun-2", Progress: 7})
		state.FinishTask(tx, *cancelled, at)
	})
	check("one is finished", 1, "bun-1")
	if _, _, there := state.TaskObservations.Get(s.View(), "bun-2"); there || generation("n2") == told {
		t.Error("of a finished task there is an observation, or its node isn't told")
	}
	write(func(tx *state.Tx) {
		over, _, _ := state.Tasks.Get(tx, "bun-2")
		if state.CancelTask(tx, *over, at) {
			t.Error("a finished task was cancelled")
		}
		state.FinishTask(tx, one, at)
	})
	check("all are finished", 0)
	// One that was made before tasks were counted.
	write(func(tx *state.Tx) {
		state.Tasks.Put(tx, cloud.Task{ID: "bun-4", Account: "1", Node: "n1"})
		old, _, _ := state.Tasks.Get(tx, "bun-4")
		state.FinishTask(tx, *old, at)
	})
	check("an old one is finished", 0)
}
