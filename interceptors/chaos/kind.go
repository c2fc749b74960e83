package chaos

import (
	"fmt"
	"slices"
)

// Kind says what a fault does to the calls that it hits.
type Kind uint8

// The kinds. A stream is hit when it opens, and not again.
const (
	Delay Kind = iota + 1 // the call goes on later, by [Fault].Delay
	Error                 // the call fails at once, with the status code [Fault].Code
	Drop                  // no answer until the caller's deadline; where there is none, UNAVAILABLE after [Fault].Hold
	Panic                 // the handler panics; servers only
)

var kindNames = [...]string{Delay: "delay", Error: "error", Drop: "drop", Panic: "panic"}

const kinds = "chaos.Delay, Error, Drop or Panic"

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if !k.known() {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// MarshalText returns the kind's name, for JSON and the like. The zero Kind, and what is none, is an error.
func (k Kind) MarshalText() ([]byte, error) {
	if !k.known() {
		return nil, fmt.Errorf("chaos: %v; want %s", k, kinds)
	}
	return []byte(kindNames[k]), nil
}

// UnmarshalText reads a kind's name, in lower case.
func (k *Kind) UnmarshalText(text []byte) error {
	i := slices.Index(kindNames[:], string(text))
	if !Kind(max(i, 0)).known() {
		return fmt.Errorf("chaos: the kind %.20q; want delay, error, drop or panic", text)
	}
	*k = Kind(i)
	return nil
}

func (k Kind) known() bool { return Delay <= k && k <= Panic }
