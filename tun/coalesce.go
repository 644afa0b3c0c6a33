package tun

// maxTrain is the number of packets that one superpacket is made of at most.
const maxTrain = 64

type coalescer struct{}
