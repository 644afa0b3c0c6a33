// Package kernel tells what nothing but the version of the running kernel tells. What can
// be probed is probed where it is used. It also gives back what the process has of the
// kernel and needs no more: memory of the program's own pages, capabilities.
package kernel
