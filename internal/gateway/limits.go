package gateway

import "time"

// Bounds of everything that grows with input (design rule R9).
const (
	limitFirst           = 8192                  // messages that name no IKE SA of ours, waiting; a flood drops the rest
	limitFirstBytes      = 6 << 20               // of them
	limitEstablished     = 4096                  // messages of known IKE SAs that wait
	limitSPIs            = 1 << 16               // SPIs of ours remembered for that, in each of two generations
	limitCommands        = 1024                  // commands that wait; whoever has more waits with them
	limitJobs            = 8192                  // jobs outstanding at any time
	limitAsks            = 1024                  // questions under way at any time; more wait
	limitRADIUSAsks      = 768                   // of them that wait for a RADIUS server
	crowdedJobs          = 128                   // computations that wait: until there are fewer, nobody new is let in
	crowdedLeases        = 512                   // the same of leases that are being written
	limitAcquires        = 1024                  // acquires that wait
	limitLog             = 4096                  // events that wait for the log
	limitSubscribers     = 256                   // readers of events
	limitDeparted        = 4096                  // Child SAs whose last counters are kept while their end is told
	limitConnections     = 65536                 // connections loaded
	limitSecrets         = 65536                 // secrets loaded
	limitPools           = 4096                  // pools loaded
	limitConversations   = 16384                 // EAP conversations at once
	limitClaimed         = 128                   // octets of a claimed EAP identity that the log shows
	limitCerts           = 65536                 // certificates, CRLs and public keys loaded
	limitKeys            = 4096                  // private keys loaded
	limitParsed          = 4096                  // certificates of connections that are remembered
	limitProvers         = 8                     // keys that one AUTH is checked against
	limitChecks          = 32                    // different constraints that one peer's certificate is held against
	limitTrace           = 32                    // lines about a chain that is refused
	limitSent            = 8                     // certificates that we send
	limitRemembered      = 1 << 17               // addresses of one pool that are remembered for who had them
	limitLeased          = 8                     // addresses of one lease
	limitLookups         = 16                    // names of selectors looked up at once
	limitContended       = 64                    // addresses tried for one client while other gateways are faster
	silentGateway        = 30 * time.Second      // after so long without a sign of life, clients of another gateway get their addresses here
	leaseReclaim         = 10 * time.Second      // between looks for gateways that are gone
	leaseStoreWait       = 5 * time.Second       // for a store of leases that is not there yet
	limitAccounts        = 65536                 // sessions of clients that RADIUS let in
	limitStatements      = 16384                 // Accounting-Requests that wait
	accountSenders       = 32                    // of them under way
	accountTimeout       = time.Minute           // of one, with all retransmissions and servers
	accountGrace         = 2 * time.Second       // for the last ones
	leastInterim         = time.Second           // between interim updates of one session
	accountQuiet         = 10 * time.Second      // between lines about statements that nobody takes
	admitLife            = time.Minute           // between a server's Access-Accept and the IKE SA
	lockoutIdentityDecay = time.Minute           // in which one failed login of an identity is forgotten
	lockoutSourceDecay   = 10 * time.Second      // the same of a source
	lockoutTrust         = 30 * 24 * time.Hour   // from where an identity logged in, it is not locked out for so long
	daeQuiet             = 10 * time.Second      // between lines about requests that were dropped
	limitInforms         = 64                    // DHCPINFORMs that wait for an answer
	limitStrikes         = 65536                 // identities and sources whose failed logins are counted
	shutdownGrace        = 3 * time.Second       // for Deletes to be answered
	resolveTimeout       = 10 * time.Second      // of one name look-up
	retryNames           = 30 * time.Second      // before names that did not resolve are tried again
	hostGathers          = 2 * time.Millisecond  // after a change of several policies, for what comes to be done together
	hostSlow             = 25 * time.Millisecond // a change of the host that takes longer is not waited for by each of many loads
	hostLag              = time.Second           // at most so late it is done then
	retryHost            = time.Second           // before a failed change of the host is tried again, doubled
	retryHostMost        = 30 * time.Second      // at most
)
