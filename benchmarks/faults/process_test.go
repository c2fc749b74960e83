//go:build unix

package faults

import (
	"syscall"
	"testing"
)

// A callee that hangs: its connections stand, and nobody answers.
func TestCalleeIsStoppedAndContinued(t *testing.T) {
	none := leaks(t)
	callee := startCallee(t, "127.0.0.1:0", nil)
	c := newCaller(t, callee.address, nil)
	survive(t, c, trouble{
		begin: func() { callee.signal(t, syscall.SIGSTOP) },
		end:   func() { callee.signal(t, syscall.SIGCONT) },
		lasts: failing,
	})
	c.close()
	callee.kill()
	none()
}

// A callee that crashes, and that somebody starts again.
func TestCalleeIsKilledAndRestarted(t *testing.T) {
	none := leaks(t)
	callee := startCallee(t, "127.0.0.1:0", nil)
	c := newCaller(t, callee.address, nil)
	survive(t, c, trouble{
		begin: callee.kill,
		end:   func() { callee = startCallee(t, callee.address, nil) },
		lasts: failing,
	})
	c.close()
	callee.kill()
	none()
}
