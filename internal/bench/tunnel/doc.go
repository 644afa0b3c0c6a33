// Package tunnel is `adit bench tunnel`: it measures what a tunnel carries between two
// hosts, adit's and those of other user space VPNs, beside plain forwarding, all on one
// machine, in one run and with the same traffic.
//
// Each contender has, in every round, namespaces and processes of its own (package
// lab builds host - gateway - gateway - host); rounds go through the contenders in
// changing order. Package traffic is the hosts. What the contenders are is in
// contender.go, what is measured in measure.go; others.go watches what else the machine
// does; result.go has the form of the JSON file.
//
// It knows nothing of how adit works inside: the gateways are the real `adit run` with a
// tunnel set up by IKEv2. Start reading at [Run]; bench/README.md says what the figures
// mean.
package tunnel
