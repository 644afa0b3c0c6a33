package gateway

import "time"

// Bounds of everything that grows with input (design rule R9).
const (
	limitFirst       = 512              // first messages of peers that wait; a flood drops the rest
	limitEstablished = 4096             // messages of known IKE SAs that wait
	limitCommands    = 1024             // commands that wait
	limitJobs        = 8192             // jobs outstanding at any time
	limitComputes    = 1024             // computations that wait for the pool
	limitAsks        = 256              // questions under way at any time
	limitAcquires    = 1024             // acquires that wait
	limitSubscribers = 256              // readers of events
	limitConnections = 65536            // connections loaded
	limitSecrets     = 65536            // secrets loaded
	shutdownGrace    = 3 * time.Second  // for Deletes to be answered
	resolveTimeout   = 10 * time.Second // of one name look-up
)
