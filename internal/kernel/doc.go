// Package kernel tells what nothing but the version of the running kernel tells. What can
// be probed is probed where it is used.
package kernel
