package euca

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows the steps of long work on standard error: a bar on a
// terminal, a line a step in a pipe, or there nothing where it is to be quiet.
type progress struct {
	out      io.Writer
	terminal bool
	quiet    bool
	step     string
	bar      *progressbar.ProgressBar
}

func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// progress of a euca-command, which says nothing in a pipe.
func (s *session) progress() *progress {
	p := newProgress(s.said)
	p.quiet = true
	return p
}

// show that done of total is reached in the step; a total of 0 is not known.
func (p *progress) show(step string, done, total int64) {
	if step != p.step {
		p.end()
		p.step = step
		switch {
		case !p.terminal && p.quiet:
			return
		case !p.terminal:
			fmt.Fprintln(p.out, step)
			return
		}
		p.bar = p.newBar(step, total)
	}
	if p.bar == nil {
		return
	}
	if total > 0 {
		p.bar.ChangeMax64(total)
	}
	p.bar.Set64(done) // an error would say that the bar is full
}

// end of the step that is shown.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Finish()
		fmt.Fprintln(p.out)
	}
	p.step, p.bar = "", nil
}

func (p *progress) newBar(step string, total int64) *progressbar.ProgressBar {
	if total <= 0 {
		total = -1 // a spinner
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionSetDescription(fmt.Sprintf("%-44s", step)),
		progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionShowBytes(false),
		progressbar.OptionSetPredictTime(false),
	)
}
