package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"text/tabwriter"
	"time"
)

// report is all that was measured.
type report struct {
	Host    host                `json:"host"`
	Figures []figure            `json:"figures"`
	Samples map[string][]sample `json:"samples"`
	began   time.Time
	asJSON  bool
}

// host on which it was measured; figures of a busy one are noisy.
type host struct {
	CPUs       int     `json:"cpus"`
	LoadBefore float64 `json:"load_before"`
	LoadAfter  float64 `json:"load_after"`
	Seconds    float64 `json:"seconds"`
}

// figure and its goal, which is the most it may be; zero is none.
type figure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	summary
	Goal float64 `json:"goal,omitempty"`
	Met  string  `json:"met,omitempty"`
}

// sample is a pair in milliseconds.
type sample struct {
	Reply       float64 `json:"reply_ms"`
	Process     float64 `json:"process_ms"`
	Byte        float64 `json:"byte_ms"`
	BareProcess float64 `json:"bare_process_ms"`
	BareByte    float64 `json:"bare_byte_ms"`
}

func newReport(o options) *report {
	return &report{
		Host: host{CPUs: runtime.NumCPU(), LoadBefore: load()}, Samples: map[string][]sample{},
		began: time.Now(), asJSON: o.json,
	}
}

func (r *report) finish() {
	r.Host.LoadAfter, r.Host.Seconds = load(), time.Since(r.began).Seconds()
}

// add a figure that may be goal at most.
func (r *report) add(name, unit string, s summary, goal float64) {
	r.Figures = append(r.Figures, figure{name, unit, s, goal, met(s, goal)})
	say("%s: %s %s", name, short(s.Value), unit)
}

// met says so, and whether another run might say otherwise.
func met(s summary, goal float64) string {
	if goal == 0 {
		return ""
	}
	word := "yes"
	if s.Value > goal {
		word = "NO"
	}
	if s.Samples > 1 && s.Low <= goal && goal < s.High {
		word += ", within noise"
	}
	return word
}

func (r *report) keep(name string, pairs []pair) {
	for _, p := range pairs {
		r.Samples[name] = append(r.Samples[name], sample{
			milliseconds(p.ours.reply), milliseconds(p.ours.process), milliseconds(p.ours.byte),
			milliseconds(p.bare.process), milliseconds(p.bare.byte),
		})
	}
}

func (r *report) print(w io.Writer) error {
	if r.asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tmeasured\t95 in 100\tleast … most\tof\tgoal\tmet")
	for _, f := range r.Figures {
		fmt.Fprintln(t, f.row())
	}
	fmt.Fprintf(t, "\non %d processors, load %.1f before and %.1f after, in %.0f s\n", r.Host.CPUs, r.Host.LoadBefore, r.Host.LoadAfter, r.Host.Seconds)
	return t.Flush()
}

func (f figure) row() string {
	spread, goal := "\t", ""
	if f.Samples > 1 {
		spread = fmt.Sprintf("%s … %s\t%s … %s", short(f.Low), short(f.High), short(f.Min), short(f.Max))
	}
	if f.Goal > 0 {
		goal = "≤ " + short(f.Goal)
	}
	return fmt.Sprintf("%s\t%s %s\t%s\t%d\t%s\t%s", f.Name, short(f.Value), f.Unit, spread, f.Samples, goal, f.Met)
}

// short has as many digits as mean anything.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}
