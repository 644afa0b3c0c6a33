package ikev1

import "time"

// The bounds of one ISAKMP SA.
const (
	// limitChildren bounds the IPsec SA pairs under one ISAKMP SA.
	limitChildren = 256
	// limitExchanges bounds the quick modes of the peer that are under way.
	limitExchanges = 8
	// limitTasks bounds the exchanges of ours that wait.
	limitTasks = 512
	// limitAnswers bounds the last answers that are kept for repetitions, timeoutAnswer
	// how long.
	limitAnswers  = 8
	timeoutAnswer = 3 * time.Minute
	// limitHeld and limitHeldBytes bound what waits while the SA is busy.
	limitHeld      = 16
	limitHeldBytes = 64 << 10
	// limitPartials bounds the messages of the peer's that have not come whole,
	// timeoutFragments how long they are kept.
	limitPartials    = 2
	timeoutFragments = 30 * time.Second
	// limitOffered bounds the transforms that we offer in one proposal, whose number is
	// one byte; limitLooked those of the peer that are looked at.
	limitOffered = 120
	limitLooked  = 128
	// limitLookups bounds the searches for a shared key in one main mode, limitKeys the
	// keys that are tried.
	limitLookups = 8
	limitKeys    = 8
	// limitCerts, limitAuthorities bound the CERT and CERTREQ payloads that are read.
	// limitAskedFor and limitAskedBytes the names in ours.
	limitCerts       = 20
	limitAuthorities = 64
	limitAskedFor    = 32
	limitAskedBytes  = 2048
	limitIdentity    = 4096
	// limitUser bounds name and password of XAUTH, limitVIPs the virtual addresses,
	// limitAttributes the attributes of Mode Config that are looked at.
	limitUser       = 256
	limitVIPs       = 8
	limitInstead    = 16 // leases of older ISAKMP SAs that are a peer's own
	limitAttributes = 64
	limitShown      = 200
	// limitDPD is how many R-U-THERE go out before a peer is given up, where dpd_timeout
	// doesn't say how long.
	limitDPD = 5

	// nonceLen is the length of our nonces, minNonce and maxNonce bound the peer's
	// (RFC 2409 §5).
	nonceLen = 32
	minNonce = 8
	maxNonce = 256

	// refusalGrace is how long an attempt goes on after an error that nobody vouches for.
	refusalGrace = time.Second
	// timeoutAsk, timeoutSign, timeoutVerify bound the questions to the driver.
	timeoutAsk    = 20 * time.Second
	timeoutSign   = 20 * time.Second
	timeoutVerify = 25 * time.Second
	// timeoutXAuth bounds XAUTH, in which somebody may type a password; timeoutXAuthAnswer
	// is how long the answer of who knows the passwords may take.
	timeoutXAuth       = 60 * time.Second
	timeoutXAuthAnswer = 25 * time.Second
	// graceAsk is added to a set-up's time after an answer.
	graceAsk = 10 * time.Second
	// retryRekey is the wait before a failed rekey is tried again.
	retryRekey = 30 * time.Second
	// emptyGrace is how long an ISAKMP SA whose IPsec SAs passed to a newer one stays.
	emptyGrace = 5 * time.Second
	// softPackets and hardPackets bound an IPsec SA without extended sequence numbers.
	softPackets = 1<<32 - 1<<29
	hardPackets = 1<<32 - 1
	// leastLife is the shortest lifetime of a peer that is followed.
	leastLife = 60 * time.Second
)
