package vici

import "time"

// Limits of the protocol.
const (
	// MaxPacket is the length in bytes of one packet without the length before it.
	MaxPacket = 512 << 10
	// MaxName is the length in bytes of the name of a command, event, section, key or list.
	MaxName = 255
	// MaxValue is the length in bytes of a value or list item.
	MaxValue = 65535
)

// Limits of ours.
const (
	// MaxDepth is how deeply the sections of a message may nest.
	MaxDepth = 32
	// MaxElements is the number of elements of one message.
	MaxElements = 1 << 16
	// DefaultClients is the number of clients at one time; further ones are hung up on.
	DefaultClients = 128
	// DefaultQueue is the number of packets that may wait for one client to read.
	DefaultQueue = 4096
	// DefaultQueueBytes is how many bytes these may have together.
	DefaultQueueBytes = 1 << 20
	// DefaultStall is how long a client may leave its socket full before it is cut off: long
	// enough for a person who reads a listing in a pager.
	DefaultStall = 5 * time.Minute
	// closeFlush is how long closing waits for clients to take what is still queued for them.
	closeFlush = time.Second
	// probeTimeout is how long a live server may take to accept when a stale socket is suspected.
	probeTimeout = time.Second
)
