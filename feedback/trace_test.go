package feedback

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillway-go/spillway/littles"
)

var update = flag.Bool("update", false, "write testdata/*.trace anew")

// A trace is a scenario in the first lines of a file, each "at SECONDS workers N service DURATION offered RATE",
// and below a line of "---" what the law made of it: a line for each change of the limit. The plant is a pool
// without noise: what it does in a window follows from the limit alone.
type scene struct {
	at      float64 // seconds
	workers float64
	service time.Duration
	offered float64 // requests per second
}

func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.trace")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".trace"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			scenario, want, _ := bytes.Cut(content, []byte("---\n"))
			got := play(t, scenario)
			if *update {
				if err := os.WriteFile(file, append(append(scenario, "---\n"...), got...), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the law does something else than in the trace (go test ./feedback -update writes it anew):\n%s", got)
			}
		})
	}
}

// play runs the law through a scenario of ten seconds.
func play(t *testing.T, scenario []byte) []byte {
	var scenes []scene
	for scanner := bufio.NewScanner(bytes.NewReader(scenario)); scanner.Scan(); {
		line := scanner.Text()
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		var s scene
		var service string
		if _, err := fmt.Sscanf(line, "at %g workers %g service %s offered %g", &s.at, &s.workers, &service, &s.offered); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		var err error
		if s.service, err = time.ParseDuration(service); err != nil {
			t.Fatal(err)
		}
		scenes = append(scenes, s)
	}
	var law Elasticity
	var out bytes.Buffer
	limit := 20
	for now := time.Duration(0); now < 10*time.Second; {
		s := scenes[0]
		for _, later := range scenes[1:] {
			if now.Seconds() >= later.at {
				s = later
			}
		}
		sample := s.window(now, limit)
		next := law.Update(sample)
		if next != limit {
			fmt.Fprintf(&out, "%6.3fs  limit %4d -> %4d  in flight %6.1f  goodput %6.0f/s  latency %v\n", sample.End.Seconds(),
				limit, next, sample.Concurrency(), float64(sample.Goodput()), sample.Latency().Round(100*time.Microsecond))
		}
		limit, now = next, sample.End
	}
	return out.Bytes()
}

// window is what a pool without noise shows under a limit: as much in flight as the limit allows and the load
// needs.
func (s scene) window(now time.Duration, limit int) Sample {
	needed := s.offered * s.service.Seconds() // in flight, by Little's law, if nothing ever waits
	n := float64(limit)
	if needed <= s.workers {
		n = min(n, needed)
	}
	x := min(n, s.workers) / s.service.Seconds()
	w := n / x // seconds
	length := max(w, MinCompletions/x)
	count := int64(math.Round(x * length))
	offered := int64(math.Round(s.offered * length))
	sample := Sample{
		Window: littles.Window{
			Start: now, End: now + time.Duration(length*float64(time.Second)),
			Area: n * length, Arrivals: count, Completions: count, Good: count,
			Sum: w * float64(count),
		},
		Limit: limit, Peak: int(math.Ceil(n)), Offered: offered,
	}
	if n == float64(limit) {
		sample.Waited = count
		sample.Refused = max(0, offered-count)
	}
	return sample
}
