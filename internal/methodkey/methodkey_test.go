package methodkey

import (
	"fmt"
	"testing"
)

func TestValid(t *testing.T) {
	for _, key := range []string{"/a.B/C", "/a.B/*", "/B/C", "/grpc.health.v1.Health/Check"} {
		if !Valid(key) {
			t.Errorf("%q is not taken", key)
		}
	}
	for _, key := range []string{
		"", "/", "//", "*", "/*", "/*/*", "a.B/C", "/a.B", "/a.B/", "//C", "/a.B/C/D", "/a.*/C", "/a.B/C*", "/a.B/**", "/a.B /C", "/a.B/C ",
	} {
		if Valid(key) {
			t.Errorf("%q is taken for a method", key)
		}
	}
}

func ExampleValid() {
	fmt.Println(Valid("/shop.v1.Shop/Buy"), Valid("/shop.v1.Shop/*"), Valid("Buy"))
	// Output: true true false
}
