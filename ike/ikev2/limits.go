package ikev2

import "time"

// The bounds of one IKE SA (rule R9 of the design).
const (
	// limitTasks bounds the exchanges that wait to be started.
	limitTasks = 256
	// limitHeld bounds the datagrams that wait while the IKE SA is busy.
	limitHeld = 8
	// limitHeldBytes bounds their size together.
	limitHeldBytes = 64 << 10
	// limitHeldUp is limitHeld of an established IKE SA: a message in fragments may
	// come while it is busy.
	limitHeldUp = limitFragments
	// limitFragments bounds the fragments of one message, of ours and of the peer's
	// (RFC 7383 §2.5).
	limitFragments = 64
	// timeoutFragments is how long the other fragments of a message are waited for;
	// a peer that repeats it sends all of them again.
	timeoutFragments = 30 * time.Second
	// limitChildren bounds the Child SAs of one IKE SA, replaced ones included.
	limitChildren = 256
	// limitResources bounds those of single resources with the same selectors (RFC 9611).
	limitResources = 64
	// limitReplaced bounds the replaced IKE SAs of one peer that wait for its Delete.
	limitReplaced = 4
	// limitPSKs bounds the shared keys that one AUTH is checked against.
	limitPSKs = 8
	// limitInitRetries bounds COOKIE and INVALID_KE_PAYLOAD answers to one IKE_SA_INIT.
	limitInitRetries = 6
	// limitKERetries bounds INVALID_KE_PAYLOAD answers to one CREATE_CHILD_SA.
	limitKERetries = 3
	// limitIdentity bounds the bytes of a peer's identity.
	limitIdentity = 1024
	// limitPassed bounds the connections that a Rejection lists as passed over.
	limitPassed = 16
	// limitAuthExchanges bounds the IKE_AUTH exchanges of one set-up, those of EAP included.
	limitAuthExchanges = 128
	// limitCerts bounds the CERT payloads of one round that are looked at; their bytes
	// are bounded by those of a message.
	limitCerts = 20
	// limitHashes and limitAnnouncements bound what a peer tells of its signatures.
	limitHashes        = 16
	limitAnnouncements = 64
	// limitAuthorityBytes bounds the key hashes of a peer's CERTREQs, limitAskedAuthorities
	// the authorities that we name ourselves.
	limitAuthorityBytes   = 200 * 20
	limitAskedAuthorities = 32
	// limitEAPPacket bounds one EAP packet.
	limitEAPPacket = 16 << 10
	// limitEAPIdentity bounds the bytes of an identity inside EAP.
	limitEAPIdentity = 1024
	// limitShown bounds the bytes of a peer's identity in logs.
	limitShown = 200
	// limitSelectors bounds the traffic selectors of one side that take part in narrowing.
	limitSelectors = 128
	// limitPairs bounds the pairs of selectors that are asked for one by one of a peer
	// that takes no more in one Child SA.
	limitPairs = 64
	// limitLink bounds the bytes of a peer's ADDITIONAL_KEY_EXCHANGE.
	limitLink = 1024
	// limitAwaiting bounds the exchanges of a peer's that wait for additional key
	// exchanges, timeoutAwaiting how long each of them may take (RFC 9370 §2.2.4).
	limitAwaiting   = 4
	timeoutAwaiting = 20 * time.Second
	// limitPPKs bounds the PPKs that a peer may name at once (RFC 9867).
	limitPPKs = 8
	// limitTemporary bounds the repetitions after TEMPORARY_FAILURE (RFC 7296 §2.25).
	limitTemporary = 20
	// limitVIPs bounds the virtual addresses of one IKE SA, asked for and given.
	limitVIPs = 8
	// limitInstead bounds the leases of older IKE SAs of a peer that comes back.
	limitInstead = 16
	// limitAttributes and limitAttributeBytes bound the configuration attributes of a
	// peer that are looked at, and those of ours that are sent.
	limitAttributes     = 64
	limitAttributeBytes = 8 << 10
	// limitAdditional bounds the additional addresses of either end (RFC 4555), limitRemotes
	// the addresses of a peer that are considered, limitPaths the pairs that one request is
	// sent over, limitNATRetries the repetitions, retryNAT apart, after UNEXPECTED_NAT_DETECTED.
	limitAdditional = 16
	limitRemotes    = 32
	limitPaths      = 8
	limitNATRetries = 5
	// limitMessageID is the number of requests after which an IKE SA is rekeyed,
	// long before message IDs end (RFC 7296 §2.2).
	limitMessageID = 1 << 30

	// limitUnproven bounds the waits, retryUnproven each, of a Delete for the proof
	// that the peer knows the Child SA.
	limitUnproven = 30
	retryUnproven = 500 * time.Millisecond

	retryNAT = time.Second
	// retryStranded is how often a path is looked for while there is none, minPathCheck the
	// least time between two checks of a path because of changes of the host.
	retryStranded = 5 * time.Second
	minPathCheck  = 2 * time.Second

	// refusalGrace is how long an attempt goes on after a refusal of IKE_SA_INIT, which
	// anybody can forge: the true answer may still come (RFC 7296 §2.21.1).
	refusalGrace = time.Second

	// timeoutAsk is how long the search for a shared key may take, timeoutSign a
	// signature of ours, timeoutVerify the check of the peer's with all revocation
	// lists, timeoutEAP one answer of an EAP method, maybe of a RADIUS server.
	timeoutAsk    = 20 * time.Second
	timeoutSign   = 20 * time.Second
	timeoutVerify = 25 * time.Second
	timeoutEAP    = 25 * time.Second
	// timeoutRepeated is when nobody repeats a request any more.
	timeoutRepeated = 4 * time.Minute
	// graceAsk is added to a set-up's time after an answer.
	graceAsk = 10 * time.Second
	// limitSetup is the longest time for a set-up, in which people may type passwords.
	limitSetup = 180 * time.Second
	// minAuthLifetime is the least time to an authentication that a peer may demand.
	minAuthLifetime = 30 * time.Second
	// retryTemporary is the least wait after TEMPORARY_FAILURE; jitter is added.
	retryTemporary = 2 * time.Second
	// timeoutReplaced is how long a replaced IKE or Child SA waits for the Delete of
	// the peer that replaced it, before it is deleted from this side.
	timeoutReplaced = 60 * time.Second
	// retryRekey is the wait before a refused rekey is tried again.
	retryRekey = 30 * time.Second
	// softPackets is when a Child SA without ESN is rekeyed: long before its 2^32
	// sequence numbers end, whatever the configuration says.
	softPackets = 1<<32 - 1<<29
	// hardPackets is the last of those sequence numbers.
	hardPackets = 1<<32 - 1
)
