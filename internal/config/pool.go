package config

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"adit/conf"
	"adit/ike/wire"
	"adit/ipsec"
)

// Limits of pools. A pool has at most limitPoolBits host bits, as in strongSwan.
const (
	limitPoolBits       = 31
	limitPoolAttributes = 256
	limitAttributeBytes = 1024
)

// Attribute types that RFC 7296 has dropped or never had; strongSwan sends them, so
// peers may know them.
const (
	attrIP6Netmask wire.AttributeType = 9
	attrIP6NBNS    wire.AttributeType = 11
	attrIP4Server  wire.AttributeType = 23456
	attrIP6Server  wire.AttributeType = 23457
	attrUnityIn    wire.AttributeType = 28676
	attrUnityOut   wire.AttributeType = 28678
)

// attributeTypes are the attributes by strongSwan's names, of IPv4 and IPv6.
var attributeTypes = map[string][2]wire.AttributeType{
	"address": {wire.InternalIP4Address, wire.InternalIP6Address}, "dns": {wire.InternalIP4DNS, wire.InternalIP6DNS},
	"nbns": {wire.InternalIP4NBNS, attrIP6NBNS}, "dhcp": {wire.InternalIP4DHCP, wire.InternalIP6DHCP},
	"netmask": {wire.InternalIP4Netmask, attrIP6Netmask}, "server": {attrIP4Server, attrIP6Server},
	"subnet": {wire.InternalIP4Subnet, wire.InternalIP6Subnet}, "p_cscf": {wire.PCSCFIP4Address, wire.PCSCFIP6Address},
	"split_include": {attrUnityIn, attrUnityIn}, "split_exclude": {attrUnityOut, attrUnityOut},
}

func setAttribute(d *decoder, p *Pool, v conf.Value) error { return d.attributes(&p.Attributes, v) }

// boolOfList reads a boolean that may be a list of one, as swanctl sends all but addrs.
func boolOfList(v conf.Value) (bool, error) {
	if list := v.Strings(); v.IsList && len(list) == 1 {
		v.Text, v.IsList = list[0], false
	}
	return v.Bool()
}

// poolOptions are the values of a pool.
var poolOptions = []option[Pool]{
	{name: "addrs", note: "a prefix (its first and last address are left out; from an address inside of it on, as `10.3.0.100/24`) or a range `FROM-TO`; at most 2^31 addresses",
		set: func(d *decoder, p *Pool, v conf.Value) error { return d.poolRange(p, v) }},
	{name: "masquerade", state: Own, def: "no", note: "packets of its clients that leave the gateway in the clear get the gateway’s address, so nobody needs a route back ([addresses](addresses.md#rules-for-clients))", set: into(func(p *Pool) *bool { return &p.Masquerade }, boolOfList)},
	{name: "client_to_client", state: Own, def: "yes", note: "`no`: its clients do not reach those of any pool, nor are they reached by them, whatever the selectors say ([addresses](addresses.md#rules-for-clients))", set: func(_ *decoder, p *Pool, v conf.Value) error {
		yes, err := boolOfList(v)
		p.Apart = !yes
		return err
	}},
	{name: "dns", note: "name servers", set: setAttribute},
	{name: "nbns", note: "WINS servers", set: setAttribute},
	{name: "dhcp", note: "DHCP servers", set: setAttribute},
	{name: "netmask", set: setAttribute},
	{name: "server", set: setAttribute},
	{name: "subnet", note: "what the peer should reach through the tunnel", set: setAttribute},
	{name: "p_cscf", note: "SIP servers (RFC 7651)", set: setAttribute},
	{name: "address", set: setAttribute},
	{name: "split_include", note: "Cisco Unity’s; IKEv2 clients go by their selectors", set: setAttribute},
	{name: "split_exclude", note: "the same", set: setAttribute},
	{name: "*", note: "the number of an attribute type, whose values may be text: `25 = corp.example` is split DNS (RFC 8598)", set: setAttribute},
}

// decodePool decodes one pool: addrs, and attributes by name or by number.
func (d *decoder) decodePool(s *conf.Section) Pool {
	p := Pool{Name: s.Name, Pos: s.Pos}
	values(d, s, &p, poolOptions)
	sections(d, s, nil, func(*conf.Section) bool { return false })
	if !p.From.IsValid() && len(d.errs) == 0 {
		d.failf(s.Pos, "missing addrs for pool '%s'", s.Name)
	}
	return p
}

// poolRange reads addrs: a prefix, less its first and last address, or from an
// address inside of it on; or a range. Like strongSwan.
func (d *decoder) poolRange(p *Pool, v conf.Value) error {
	text, err := v.One()
	if err != nil {
		return err
	}
	bad := func() error {
		return v.Errorf("%q is no prefix such as 10.1.0.0/24 and no range such as 10.1.0.1-10.1.0.9", text)
	}
	if lo, hi, ok := strings.Cut(text, "-"); ok {
		from, err1 := netip.ParseAddr(strings.TrimSpace(lo))
		to, err2 := netip.ParseAddr(strings.TrimSpace(hi))
		if err1 != nil || err2 != nil || from.Is4() != to.Is4() || to.Less(from) || from.Zone()+to.Zone() != "" || from.Is4In6() || to.Is4In6() {
			return bad()
		}
		p.Base, p.From, p.To = from, from, to
		if end := lastOf(from, max(0, from.BitLen()-limitPoolBits)); end.Less(to) {
			p.To = end
			d.warn(v.Pos, v.Path()+": the pool is cut to the "+strconv.Itoa(limitPoolBits)+" bits that a pool may have")
		}
		return nil
	}
	prefix, err := netip.ParsePrefix(text)
	if a, e := netip.ParseAddr(text); e == nil {
		prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || prefix.Addr().Zone() != "" || prefix.Addr().Is4In6() {
		return bad()
	}
	host := prefix.Addr().BitLen() - prefix.Bits()
	if host > limitPoolBits {
		host = limitPoolBits
		d.warn(v.Pos, v.Path()+": the pool is cut to the "+strconv.Itoa(limitPoolBits)+" bits that a pool may have")
	}
	prefix = netip.PrefixFrom(prefix.Addr(), prefix.Addr().BitLen()-host)
	p.Base, p.From, p.To = prefix.Addr(), prefix.Addr(), lastOf(prefix.Addr(), prefix.Bits())
	if host > 1 {
		if p.From == prefix.Masked().Addr() {
			p.From = p.From.Next()
		}
		p.To = p.To.Prev()
	}
	if p.To.Less(p.From) {
		return v.Errorf("there is no address in %s to give away", text)
	}
	return nil
}

// lastOf is the last address of the prefix of that length around a.
func lastOf(a netip.Addr, bits int) netip.Addr {
	return ipsec.FromPrefix(netip.PrefixFrom(a, bits).Masked()).To
}

// attributes reads values of an attribute of the configuration payload.
func (d *decoder) attributes(to *[]wire.Attribute, v conf.Value) error {
	types, known := attributeTypes[strings.ReplaceAll(v.Key, "-", "_")]
	number, err := strconv.ParseUint(v.Key, 10, 15)
	if !known && (err != nil || number == 0) {
		words := []string{"addrs"}
		for name := range attributeTypes {
			words = append(words, name)
		}
		slices.Sort(words)
		return v.Errorf("unknown attribute: a name or the number of its type is possible%s", didYouMean(v.Key, words))
	}
	for _, text := range v.Strings() {
		if len(*to) == limitPoolAttributes {
			return v.Errorf("more than %d attributes", limitPoolAttributes)
		}
		b, v4, ok := attributeBytes(text)
		a := wire.Attribute{Type: types[1], Value: b}
		switch {
		case !ok && known:
			return v.Errorf("%q is no address and no prefix", text)
		case !known:
			a.Type = wire.AttributeType(number)
			if !ok {
				a.Value = []byte(text)
			}
		case v4:
			a.Type = types[0]
		}
		if known && v.Key == "subnet" && len(b) == 4 {
			a.Value = append(b, 255, 255, 255, 255) // RFC 7296 §3.15.1: with a netmask
		} else if known && v.Key == "subnet" && len(b) == 16 {
			a.Value = append(b, 128)
		}
		if len(a.Value) > limitAttributeBytes {
			return v.Errorf("longer than %d bytes", limitAttributeBytes)
		}
		*to = append(*to, a)
	}
	return nil
}

// attributeBytes encodes an address, or a prefix as RFC 7296 §3.15.1 does subnets:
// with a netmask (IPv4) or a length (IPv6).
func attributeBytes(text string) (b []byte, v4, ok bool) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
		return a.AsSlice(), a.Is4(), true
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return nil, false, false
	}
	b = p.Addr().AsSlice()
	if !p.Addr().Is4() {
		return append(b, byte(p.Bits())), false, true
	}
	return binary.BigEndian.AppendUint32(b, uint32(uint64(math.MaxUint32)<<(32-p.Bits()))), true, true
}

// overlaps warns of pools that have an address in common.
func (d *decoder) overlaps(pools []Pool) {
	for i, a := range pools {
		for _, b := range pools[:i] {
			if a.From.IsValid() && b.From.IsValid() && a.From.Compare(b.To) <= 0 && b.From.Compare(a.To) <= 0 {
				d.warn(a.Pos, "pools."+a.Name+": has addresses in common with pools."+b.Name+": two peers may get the same")
				break
			}
		}
	}
}

// DecodePool decodes one section of the body of VICI's load-pool.
func DecodePool(s *conf.Section) (Pool, error) {
	d := &decoder{blobs: true}
	p := d.decodePool(s)
	return p, d.err()
}
