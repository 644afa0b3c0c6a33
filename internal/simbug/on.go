//go:build simbug

package simbug

// Chosen is the bug that the program has. Set it before anything runs.
var Chosen = None
