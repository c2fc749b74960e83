package main

import "testing"

func TestQuickstart(t *testing.T) {
	if got, err := run(); got != "gopher" || err != nil {
		t.Errorf("run() = %q, %v", got, err)
	}
}
