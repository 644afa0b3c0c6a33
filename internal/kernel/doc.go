// Package kernel tells what nothing but the version of the running kernel tells. What can
// be probed is probed where it is used. It also gives memory of the program's own pages back.
package kernel
