package main

import (
	"strings"
	"testing"
)

func TestPaymentsAreMadeOnce(t *testing.T) {
	var out strings.Builder
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 payments, 400 in all", "was used for another request"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %q in\n%s", want, out.String())
		}
	}
}
