package ike

import "time"

// The bounds of one Engine's tables, queues and loops (rule R9 of the design).
const (
	// limitSAs bounds the IKE SAs of one engine, established or not.
	limitSAs = 250_000
	// limitHalfOpen is the default of Config.InitLimit.
	limitHalfOpen = 10_000
	// limitHalfOpenV1 bounds those of IKEv1, which has no cookies that keep forged
	// addresses out: a flood of them must leave room for IKEv2.
	limitHalfOpenV1 = 1000
	// limitFirstMessage bounds a peer's first message in bytes, since a half-open IKE
	// SA keeps it whole (AUTH covers it). MODP-8192 with a hundred transforms and
	// vendor IDs stays under 2,500.
	limitFirstMessage = 8192
	// limitConnections bounds the connections that are remembered; each Peer has one.
	limitConnections = 200_000
	// limitWanted bounds the Child SAs that one connection waits for.
	limitWanted = 1024
	// limitOwnAddresses bounds the host's addresses that MOBIKE uses.
	limitOwnAddresses = 64
	// limitWaiters bounds the commands that wait for one initiation.
	limitWaiters = 64
	// limitTargets bounds the address pairs that one round of an initiation tries.
	limitTargets = 32
	// limitCandidates bounds the connections that are considered for one first message.
	limitCandidates = 4096
	// limitRejectionCandidates bounds those that a Rejection lists.
	limitRejectionCandidates = 16
	// limitSourceTable bounds the addresses whose half-open IKE SAs are counted.
	limitSourceTable = 65_536

	// limitLingering and limitLingerBytes bound the answers that are kept of IKE SAs that are gone.
	limitLingering   = 2048
	limitLingerBytes = 2048
	// timeoutLinger is how long.
	timeoutLinger = 3 * time.Minute
	// limitFragmentBytes bounds the fragments of messages that have not come whole,
	// over all IKE SAs of an engine (RFC 7383 §2.6); minFragmentSize and
	// maxPacket bound Config.FragmentSize below and Config.MaxPacket above.
	limitFragmentBytes = 32 << 20
	minFragmentSize    = 576
	maxPacket          = 64<<10 - 1
	// limitUnprovenRejections bounds the Rejection events a second that first
	// messages cause, before anybody has proved anything.
	limitUnprovenRejections = 20

	// limitCrashTokens bounds the tokens of crash detection that are given out a second,
	// crashSlack by how many bytes they may be larger than what asks for them.
	limitCrashTokens = 500
	crashSlack       = 16
	// limitHints bounds the INVALID_SPI notifies outside of IKE SAs that are looked at a
	// second, limitHint their bytes.
	limitHints = 20
	limitHint  = 1 << 10

	// limitRedirects and redirectPeriod bound how often one connection follows a
	// REDIRECT (RFC 5685 §7, whose defaults they are).
	limitRedirects = 5
	redirectPeriod = 300 * time.Second

	// timeoutAsk is how long a question about addresses may take.
	timeoutAsk = 15 * time.Second
	// cookieLifetime is how long one secret signs cookies; the one before stays valid as long.
	cookieLifetime = 60 * time.Second
	// dropInterval is the least time between two Dropped events of one reason.
	dropInterval = time.Second
	// orphanInterval is the least time between two INVALID_SPI notifies of one engine.
	orphanInterval = 200 * time.Millisecond
	// majorInterval is the least time between two INVALID_MAJOR_VERSION notifies of one engine.
	majorInterval = 100 * time.Millisecond
	// retryFirst and retryMost bound the back-off of RetryInitiate's default.
	retryFirst = time.Second
	retryMost  = time.Minute
	// duplicateGrace is how long the losing one of two IKE SAs that both sides
	// made at once is kept for Child SAs that the winner does not have yet.
	duplicateGrace = 10 * time.Second
)
