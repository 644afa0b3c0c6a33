package pki

import "time"

// Bounds of what is read from files and peers.
const (
	// maxFileBytes is the largest file of certificates or keys.
	maxFileBytes = 4 << 20
	// maxFileCerts is how many certificates one file may have (a bundle of all
	// public authorities has some 150).
	maxFileCerts = 1024
	// maxCertBytes is the largest certificate; an IKE message can't carry more.
	maxCertBytes = 64 << 10
	// maxNameText bounds names in errors and traces, in bytes.
	maxNameText = 512
	// maxPBKDF2Rounds bounds the iterations that an encrypted key may demand.
	maxPBKDF2Rounds = 4 << 20
	// maxScryptBytes and maxScryptParallel bound what scrypt may demand.
	maxScryptBytes, maxScryptParallel = 64 << 20, 16
	// maxPBEDepth bounds the nesting of DER looked through for iteration counts.
	maxPBEDepth = 12
)

// Bounds of a verification.
const (
	// maxIntermediates is how many certificates of the peer are looked at beside
	// its own.
	maxIntermediates = 16
	// maxChain is the longest chain, end entity and trust anchor included.
	maxChain = 10
	// maxChains is how many complete chains are tried against the constraints.
	maxChains = 8
	// maxOwnSignatures bounds the signatures the own path checks a verification;
	// crypto/x509 has its own bound of 100.
	maxOwnSignatures = 32
	// maxCandidates bounds the certificates that may be part of a chain, stored ones
	// included.
	maxCandidates = 64
	// maxConstraintChecks bounds the comparisons of names with the name constraints
	// of a certificate.
	maxConstraintChecks = 50_000
	// maxStapled is how many OCSP responses of the peer are looked at.
	maxStapled = 8
	// maxTraceLines bounds the trace of a verification.
	maxTraceLines = 256
)

// Bounds of the store.
const (
	maxStored     = 65536 // certificates of each use, and raw public keys
	maxStoredCRLs = 1024
	// maxCachedChains is how many requests' chains are remembered; each keeps the
	// certificates of a peer, some 5 KB.
	maxCachedChains = 512
)

// Bounds of revocation.
const (
	maxCRLBytes = 4 << 20
	// maxKeptCRLBytes bounds what is kept of a fetched CRL beside its entries, in bytes.
	maxKeptCRLBytes = 64 << 10
	maxOCSPBytes    = 64 << 10
	// maxURIs is how many URIs of a kind are tried for a certificate.
	maxURIs = 4
	// maxCachedCRLs and maxCachedCRLBytes bound the CRLs kept from fetches.
	maxCachedCRLs     = 128
	maxCachedCRLBytes = 16 << 20
	// maxCachedOCSP bounds the OCSP answers kept.
	maxCachedOCSP = 16384
	// maxFailures bounds the failed fetches remembered, failureHold for how long.
	maxFailures = 1024
	failureHold = 60 * time.Second
	// revocationTimeout is the time that all fetches of a verification have.
	revocationTimeout = 15 * time.Second
	// maxSingles is how many single responses of an OCSP response are looked at.
	maxSingles = 64
	// maxResponders is how many certificates of an OCSP response are looked at.
	maxResponders = 4
	// clockSkew is how far in the future another clock's thisUpdate may lie.
	clockSkew = 5 * time.Minute
	// ocspMaxAge is how old a response without nextUpdate may be.
	ocspMaxAge = time.Hour
	// nonceBytes is the length of our nonces (RFC 8954 §2.1: 32 recommended).
	nonceBytes = 32
)

// Bounds of the HTTP fetcher.
const (
	// fetchTimeout is the total time for a fetch, redirects and body included.
	fetchTimeout = 10 * time.Second
	// maxRedirects is how many redirects are followed.
	maxRedirects = 3
	// maxPerHost and maxFetches bound the fetches at once, to a host and in all.
	maxPerHost, maxFetches = 4, 16
	// maxURLBytes is the longest URL.
	maxURLBytes = 2048
	// maxHeaderBytes bounds the header of a response.
	maxHeaderBytes = 16 << 10
)
