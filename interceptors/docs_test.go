package interceptors

import (
	"os"
	"strings"
	"testing"

	"github.com/spillway-go/spillway/limiter"
)

// Whoever meets a reason finds it in docs/refusals.md, and the metrics' part of the README.
func TestEveryReasonIsInTheDocuments(t *testing.T) {
	refusals, readme := read(t, "../docs/refusals.md"), read(t, "../README.md")
	for r := limiter.ReasonLimit; int(r) < reasons; r++ {
		if row := "| `" + r.String() + "` |"; !strings.Contains(refusals, row) {
			t.Errorf("docs/refusals.md has no row %q", row)
		}
		if !strings.Contains(readme, "`"+r.String()+"`") {
			t.Errorf("the README does not mention %q", r)
		}
	}
	for _, message := range []string{messageOverloaded, messageTooLate} {
		if !strings.Contains(refusals, "`"+message+"`") {
			t.Errorf("docs/refusals.md does not have the message %q", message)
		}
	}
	for o := range obstacle(obstacles) {
		if row := "| `" + strings.ToUpper(o.String()) + "` (caller's side) |"; !strings.Contains(refusals, row) {
			t.Errorf("docs/refusals.md has no row %q", row)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
