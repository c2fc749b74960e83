// Package layout holds the tests of how the packages may depend on each other.
package layout
