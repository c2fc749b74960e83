//go:build !race

package lab

const shuffled = false
