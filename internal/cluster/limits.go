package cluster

import "time"

// Bounds of what is kept and waited for.
const (
	limitRecord     = 2048             // bytes of one record
	limitName       = 512              // bytes of an identity or a pool's name in it
	limitGateways   = 1024             // gateways that are remembered
	limitFreed      = 1 << 17          // addresses that wait to be written as free
	limitStore      = 1 << 30          // bytes of the embedded store
	startTimeout    = 10 * time.Second // of the embedded server
	openTimeout     = 5 * time.Second  // of one attempt to find or make the bucket
	takeTimeout     = 5 * time.Second  // of one lease
	attemptTimeout  = 2 * time.Second  // of one write
	closeTimeout    = 2 * time.Second  // for what is still to be written
	syncInterval    = 10 * time.Second // of what nobody waits for
	retryPause      = 150 * time.Millisecond
	retryOpen       = time.Second
	heartbeat       = 5 * time.Second
	silentAfter     = 30 * time.Second // a gateway that was not heard for so long is gone
	reconnectPause  = 500 * time.Millisecond
	dialTimeout     = 2 * time.Second
	pingInterval    = 5 * time.Second
	defaultReplicas = 3
)
