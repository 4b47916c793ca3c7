package state

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkUpdate is one writer's change of one record, durable and mirrored.
func BenchmarkUpdate(b *testing.B) {
	s := openDir(b, b.TempDir())
	took := make([]time.Duration, 0, b.N)
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		commitTo(b, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Size: i + 1}) })
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// commitTo is update without a bound of its own, which would be measured too.
func commitTo(b *testing.B, s *Store, fn func(*Tx)) {
	if err := s.Update(b.Context(), func(tx *Tx) error { fn(tx); return nil }); err != nil {
		b.Error(err)
	}
}

func benchmarkWriters(b *testing.B, fn func(tx *Tx, writer, n int)) {
	s := openDir(b, b.TempDir())
	var next atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				commitTo(b, s, func(tx *Tx) { fn(tx, w, int(n)) })
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

// BenchmarkUpdate32 is 32 writers of three records each, which never meet.
func BenchmarkUpdate32(b *testing.B) {
	benchmarkWriters(b, func(tx *Tx, w, n int) {
		for i := range 3 {
			widgets.Put(tx, widget{ID: fmt.Sprint(w, "-", i), Size: n})
		}
	})
}

// BenchmarkUpdate32SameCount is 32 writers of one count, which always meet.
func BenchmarkUpdate32SameCount(b *testing.B) {
	benchmarkWriters(b, func(tx *Tx, _, _ int) { tx.Add("n", "n", 1) })
}

func BenchmarkMemoryUpdate(b *testing.B) {
	s := openMemory(b, NewMemory())
	for i := 0; b.Loop(); i++ {
		commitTo(b, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Size: i + 1}) })
	}
}

func tenThousand(b *testing.B) *Store {
	s := openMemory(b, NewMemory())
	commitTo(b, s, func(tx *Tx) {
		for i := range 10000 {
			widgets.Put(tx, widget{ID: fmt.Sprintf("%05d", i), Owner: fmt.Sprint(i % 100)})
		}
	})
	return s
}

// BenchmarkList10k goes through all of 10,000 records.
func BenchmarkList10k(b *testing.B) {
	s := tenThousand(b)
	for b.Loop() {
		n := 0
		for w := range widgets.All(s.View()) {
			n += len(w.ID)
		}
		if n != 50000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkBy100of10k goes through one owner's hundred of 10,000 records.
func BenchmarkBy100of10k(b *testing.B) {
	s := tenThousand(b)
	for b.Loop() {
		n := 0
		for range widgetsByOwner.By(s.View(), "42") {
			n++
		}
		if n != 100 {
			b.Fatal(n)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := tenThousand(b)
	for b.Loop() {
		if _, _, ok := widgets.Get(s.View(), "05000"); !ok {
			b.Fatal("not there")
		}
	}
}

// BenchmarkReopen10k is from Open on 10,000 records to the first durable
// Update.
func BenchmarkReopen10k(b *testing.B) {
	dir := b.TempDir()
	s := openDir(b, dir)
	commitTo(b, s, func(tx *Tx) {
		for i := range 10000 {
			widgets.Put(tx, widget{ID: fmt.Sprintf("%05d", i), Owner: fmt.Sprint(i % 100)})
		}
	})
	closeStore(b, s)
	for b.Loop() {
		s := openDir(b, dir)
		commitTo(b, s, func(tx *Tx) { tx.Add("n", "n", 1) })
		b.StopTimer()
		closeStore(b, s)
		b.StartTimer()
	}
}

// BenchmarkOpenNew is from nothing to the first durable Update.
func BenchmarkOpenNew(b *testing.B) {
	for b.Loop() {
		s := openDir(b, b.TempDir())
		commitTo(b, s, func(tx *Tx) { tx.Add("n", "n", 1) })
		b.StopTimer()
		closeStore(b, s)
		b.StartTimer()
	}
}
