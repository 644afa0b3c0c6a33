// Package ipsec is the vocabulary of RFC 4301 that the IKE engines, the data
// planes and the configuration share: SPIs, traffic selectors and their
// algebra, the parameters of one SA, policies, and the interface of a data
// plane.
//
// It derives no keys, sees no packets, does no I/O and knows neither IKE nor
// any backend. Start with Selector (selector.go), then SAParams and Policy
// (sa.go) and Dataplane (dataplane.go).
package ipsec
