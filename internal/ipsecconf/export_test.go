package ipsecconf

// WithRefusals makes an import independent of what adit supports at the time: refuse
// says why an option is refused, or nothing.
func WithRefusals(o Options, refuse func(key, value string) string) Options {
	o.refuse = refuse
	return o
}
