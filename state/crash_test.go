package state

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// crashDir in the environment makes the test binary the process that
// TestKilled kills.
const crashDir = "MALLEE_STATE_CRASH_DIR"

const crashWriters = 8

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		writeUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// writeUntilKilled counts up in two records each of several writers, always
// to the same number in one transaction, and prints what was acknowledged.
func writeUntilKilled(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := Open(ctx, Options{Dir: dir, Logger: quiet()})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for w := range crashWriters {
		wg.Go(func() {
			for ctx.Err() == nil {
				n, err := countUp(ctx, s, w)
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println("ack", w, n)
			}
		})
	}
	wg.Wait()
	os.Exit(1)
}

func countUp(ctx context.Context, s *Store, writer int) (n int, err error) {
	left, right := pairOf(writer)
	err = s.Update(ctx, func(tx *Tx) error {
		n = 1
		if w, _, ok := widgets.Get(tx, left); ok {
			n = w.Size + 1
		}
		widgets.Put(tx, widget{ID: left, Size: n})
		widgets.Put(tx, widget{ID: right, Size: n})
		tx.Add("total", "all", 1)
		return nil
	})
	return n, err
}

func pairOf(writer int) (left, right string) {
	return fmt.Sprint(writer, "-left"), fmt.Sprint(writer, "-right")
}

// What was acknowledged survives a kill -9, whole; what wasn't is there whole
// or not at all.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		acked := killAfter(t, dir, 200)
		s := openDir(t, dir)
		total := 0
		for w := range crashWriters {
			leftID, rightID := pairOf(w)
			left, _, _ := widgets.Get(s.View(), leftID)
			right, _, _ := widgets.Get(s.View(), rightID)
			if left == nil || right == nil || left.Size != right.Size {
				t.Fatalf("round %d: half a transaction: %+v and %+v", round, left, right)
			}
			if left.Size < acked[w] {
				t.Fatalf("round %d: writer %d was told of %d, there is %d", round, w, acked[w], left.Size)
			}
			total += left.Size
		}
		if got := Count(s.View(), "total", "all"); got != int64(total) {
			t.Fatalf("round %d: counted %d of %d", round, got, total)
		}
		closeStore(t, s)
	}
}

// killAfter runs writeUntilKilled, kills it after so many acknowledgements and
// returns the last of each writer.
func killAfter(t *testing.T, dir string, acks int) map[int]int {
	t.Helper()
	cmd := exec.CommandContext(within(t), os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked := map[int]int{}
	for lines := bufio.NewScanner(out); lines.Scan(); acks-- {
		if acks == 0 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		f := strings.Fields(lines.Text())
		if len(f) != 3 || f[0] != "ack" {
			continue // the last line may be cut, or tell an error
		}
		w, _ := strconv.Atoi(f[1])
		n, _ := strconv.Atoi(f[2])
		acked[w] = max(acked[w], n)
	}
	if err := cmd.Wait(); err == nil || acks > 0 {
		t.Fatalf("ended by itself, with %d acknowledgements to come: %v", acks, err)
	}
	return acked
}
