//go:build !simbug

package simbug

// Chosen is the bug that the program has: none.
const Chosen = None
