package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far the run is: as a bar on a terminal, else as a line a phase.
type progress struct {
	out  io.Writer
	bar  *progressbar.ProgressBar
	each time.Duration
	stop chan struct{}
	done int
}

func newProgress(out io.Writer, each time.Duration) *progress {
	p := &progress{out: out, each: each}
	if file, ok := out.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.bar = progressbar.NewOptions64(int64(len(roles)*len(phases))*int64(each/time.Millisecond),
				progressbar.OptionSetWriter(out), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(),
				progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false))
		}
	}
	return p
}

func (p *progress) say(format string, args ...any) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// begin says which phase runs now, and moves the bar while it does.
func (p *progress) begin(server string, ph phase) {
	p.pause()
	if p.bar == nil {
		p.say("%s: %s for %v", server, ph.name, p.each)
		return
	}
	p.bar.Describe(fmt.Sprintf("%-8s %-10s", server, ph.name))
	stop := make(chan struct{})
	p.stop = stop
	from := p.done
	p.done += int(p.each / time.Millisecond)
	go func() {
		start, tick := time.Now(), time.NewTicker(100*time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = p.bar.Set(from + int(min(p.each, time.Since(start))/time.Millisecond))
			case <-stop:
				return
			}
		}
	}()
}

func (p *progress) pause() {
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
}

func (p *progress) end() {
	p.pause()
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
