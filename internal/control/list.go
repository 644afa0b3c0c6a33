package control

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/internal/gateway"
	"adit/ipsec"
	"adit/pki"
	"adit/suite"
	"adit/vici"
)

// listSAs streams one list-sa event for every IKE SA that the filter fits; a filter
// for Child SAs leaves out others of these, not IKE SAs, as in strongSwan.
func (c *controller) listSAs(ctx context.Context, req *vici.Request) (*conf.Section, error) {
	m := req.Msg
	conn, id := m.Text("ike"), number(m, "ike-id")
	child, childID := m.Text("child"), number(m, "child-id")
	body := conf.New("")
	err := c.g.EachSA(ctx, gateway.Listed{Name: conn, ID: id}, func(sa ike.SAInfo) error {
		now := time.Now()
		body.Empty()
		s := body.Add(sa.Name)
		describeIKE(s, sa, now)
		children := s.Add("child-sas")
		for _, ch := range sa.Children {
			if child != "" && child != ch.Name || childID != 0 && childID != ch.ID {
				continue
			}
			c.describeChild(children.Add(fmt.Sprintf("%s-%d", ch.Name, ch.ID)), ch, now)
		}
		return req.Emit("list-sa", body)
	})
	if err != nil {
		return nil, err
	}
	return conf.New(""), nil
}

func describeIKE(s *conf.Section, sa ike.SAInfo, now time.Time) {
	s.Grow(28)
	s.Set("uniqueid", decimal(sa.ID))
	s.Set("version", decimal(sa.Version))
	s.Set("state", sa.State)
	s.Set("local-host", sa.Local.Addr().String())
	s.Set("local-port", decimal(sa.Local.Port()))
	s.Set("local-id", sa.LocalID.String())
	s.Set("remote-host", sa.Remote.Addr().String())
	s.Set("remote-port", decimal(sa.Remote.Port()))
	s.Set("remote-id", sa.RemoteID.String())
	if sa.PPK {
		s.Set("ppk", "yes")
	}
	if sa.RemoteEAPID != "" && sa.RemoteEAPID != sa.RemoteID.String() {
		s.Set(map[bool]string{true: "remote-xauth-id", false: "remote-eap-id"}[sa.Version == 1], sa.RemoteEAPID)
	}
	setYes(s, "initiator", sa.Initiator)
	s.Setf("initiator-spi", "%016x", sa.SPIi)
	s.Setf("responder-spi", "%016x", sa.SPIr)
	setYes(s, "nat-local", sa.NATLocal)
	setYes(s, "nat-remote", sa.NATRemote)
	setYes(s, "nat-fake", sa.NATFake)
	setYes(s, "nat-any", sa.NATLocal || sa.NATRemote || sa.NATFake)
	describeSuite(s, sa.Suite)
	if sa.State == "ESTABLISHED" && !sa.Established.IsZero() {
		s.Set("established", decimal(seconds(now.Sub(sa.Established))))
		setIn(s, "rekey-time", sa.RekeyAt, now)
		setIn(s, "reauth-time", sa.ReauthAt, now)
	}
	if len(sa.LocalVIPs) > 0 {
		s.SetList("local-vips", texts(sa.LocalVIPs)...)
	}
	if len(sa.RemoteVIPs) > 0 {
		s.SetList("remote-vips", texts(sa.RemoteVIPs)...)
	}
	for _, q := range []struct {
		key   string
		tasks []string
	}{{"tasks-queued", sa.TasksQueued}, {"tasks-active", sa.Tasks}, {"tasks-passive", sa.TasksPassive}} {
		if len(q.tasks) > 0 {
			s.SetList(q.key, taskNames(q.tasks)...)
		}
	}
}

// taskNames are strongSwan's names of tasks; the engine's say behind them which child
// is meant.
func taskNames(tasks []string) []string {
	out := make([]string, len(tasks))
	for i, t := range tasks {
		out[i], _, _ = strings.Cut(t, " ")
	}
	return out
}

func (c *controller) describeChild(s *conf.Section, ch ike.ChildInfo, now time.Time) {
	in, out := c.g.Query(ch.ID)
	describeChildStats(s, ch, now, in, out)
}

func describeChildStats(s *conf.Section, ch ike.ChildInfo, now time.Time, in, out ipsec.SAStats) {
	s.Grow(28)
	s.Set("name", ch.Name)
	s.Set("uniqueid", decimal(ch.ID))
	s.Set("reqid", decimal(ch.ReqID))
	s.Set("state", ch.State)
	s.Set("mode", ch.Mode.String())
	setYes(s, "per-cpu-sas", ch.PerCPU)
	if ch.Resource > 0 {
		s.Setf("cpu", "%d", ch.Resource-1)
	}
	if ch.State != "CREATED" && ch.State != "INSTALLING" {
		s.Set("protocol", "ESP")
		setYes(s, "encap", ch.Encap)
		s.Set("spi-in", ch.SPIIn.String())
		s.Set("spi-out", ch.SPIOut.String())
		if ch.IfID != 0 {
			s.Setf("if-id-in", "%08x", ch.IfID)
			s.Setf("if-id-out", "%08x", ch.IfID)
		}
		describeSuite(s, ch.Suite)
		if ch.Suite.ESN() {
			s.Set("esn", "1")
		}
		for _, d := range []struct {
			dir string
			st  ipsec.SAStats
		}{{"in", in}, {"out", out}} {
			s.Set("bytes-"+d.dir, decimal(d.st.Bytes))
			s.Set("packets-"+d.dir, decimal(d.st.Packets))
			if !d.st.LastUse.IsZero() {
				s.Set("use-"+d.dir, decimal(seconds(now.Sub(d.st.LastUse))))
			}
		}
		setIn(s, "rekey-time", ch.RekeyAt, now)
		setIn(s, "life-time", ch.ExpireAt, now)
		s.Set("install-time", decimal(seconds(now.Sub(ch.Installed))))
	}
	s.SetList("local-ts", texts(ch.LocalTS)...)
	s.SetList("remote-ts", texts(ch.RemoteTS)...)
}

// decimal is a number as VICI has it.
func decimal[T int | int64 | uint8 | uint16 | uint32 | uint64](n T) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}

func setYes(s *conf.Section, key string, v bool) {
	if v {
		s.Set(key, "yes")
	}
}

func setIn(s *conf.Section, key string, at, now time.Time) {
	if !at.IsZero() {
		s.Set(key, decimal(seconds(at.Sub(now))))
	}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// describeSuite adds the algorithms under strongSwan's keys; the key length has its own.
func describeSuite(s *conf.Section, sel suite.Selected) {
	for _, t := range []struct {
		key, size string
		t         suite.Transform
	}{{"encr-alg", "encr-keysize", sel.Encr}, {"integ-alg", "integ-keysize", sel.Integ},
		{"prf-alg", "", sel.PRF}, {"dh-group", "", sel.KE}} {
		if t.t == (suite.Transform{}) || t.t.ID == 0 {
			continue
		}
		s.Set(t.key, t.t.Name())
		if t.size != "" && t.t.KeyBits != 0 {
			s.Set(t.size, decimal(t.t.KeyBits))
		}
	}
	for i, t := range sel.Additional { // RFC 9370
		if t.ID != suite.KENone {
			s.Set("ake"+decimal(i+1), suite.Transform{Type: suite.TypeKE, ID: t.ID}.Name())
		}
	}
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, t := range list {
		out[i] = t.String()
	}
	return out
}

func (c *controller) getConns(context.Context, *vici.Request) (*conf.Section, error) {
	var names []string
	for _, p := range c.g.Conns() {
		names = append(names, p.Name)
	}
	m := conf.New("")
	m.SetList("conns", names...)
	return m, nil
}

// listConns streams one list-conn event for every loaded connection.
func (c *controller) listConns(_ context.Context, req *vici.Request) (*conf.Section, error) {
	only := req.Msg.Text("ike")
	for _, p := range c.g.Conns() {
		if only != "" && only != p.Name {
			continue
		}
		body := conf.New("")
		describeConn(body.Add(p.Name), p)
		if err := req.Emit("list-conn", body); err != nil {
			return nil, err
		}
	}
	return conf.New(""), nil
}

func describeConn(s *conf.Section, p *ike.Peer) {
	s.SetList("local_addrs", addrList(p.LocalAddrs)...)
	s.SetList("remote_addrs", addrList(p.RemoteAddrs)...)
	s.Set("local_port", decimal(p.LocalPort))
	s.Set("remote_port", decimal(p.RemotePort))
	s.Set("version", [...]string{"IKEv1/2", "IKEv1", "IKEv2"}[p.Version%3])
	s.Set("reauth_time", decimal(seconds(p.ReauthTime)))
	s.Set("rekey_time", decimal(seconds(p.RekeyTime)))
	s.Set("unique", [...]string{"UNIQUE_NO", "UNIQUE_NEVER", "UNIQUE_REPLACE", "UNIQUE_KEEP"}[p.Unique%4])
	if p.DPDDelay > 0 {
		s.Set("dpd_delay", decimal(seconds(p.DPDDelay)))
	}
	if p.DPDTimeout > 0 {
		s.Set("dpd_timeout", decimal(seconds(p.DPDTimeout)))
	}
	if p.PPKID != "" {
		s.Set("ppk_id", p.PPKID)
	}
	if p.PPKRequired {
		s.Set("ppk_required", "yes")
	}
	describeAuth(s, "local", p.Local)
	describeAuth(s, "remote", p.Remote)
	children := s.Add("children")
	for _, ch := range p.Children {
		k := children.Add(ch.Name)
		k.Set("mode", modeName(ch.Action, ch.Mode))
		k.Setf("rekey_time", "%d", seconds(ch.RekeyTime))
		k.Setf("rekey_bytes", "%d", ch.RekeyBytes)
		k.Setf("rekey_packets", "%d", ch.RekeyPackets)
		k.Set("dpd_action", action(ch.DPDAction))
		k.Set("close_action", action(ch.CloseAction))
		k.SetList("local-ts", texts(ch.Local)...)
		k.SetList("remote-ts", texts(ch.Remote)...)
		if ch.Priority != 0 {
			k.Setf("priority", "%d", ch.Priority)
		}
	}
}

// eapTypes are strongSwan's names of EAP methods.
var eapTypes = map[ike.EAPMethod]string{
	ike.EAPIdentity: "EAP_IDENTITY", ike.EAPMD5: "EAP_MD5", ike.EAPGTC: "EAP_GTC", ike.EAPTLS: "EAP_TLS", ike.EAPTTLS: "EAP_TTLS",
	ike.EAPMSCHAPv2: "EAP_MSCHAPV2", ike.EAPDynamic: "EAP_DYNAMIC", ike.EAPRadius: "EAP_RADIUS",
}

// describeAuth adds a side's rounds; a connection without any (shunts alone) has an
// empty one. What was given stands in charon's order, the last first, as far as it has an
// effect on whom we talk to.
func describeAuth(s *conf.Section, side string, rounds []ike.AuthRound) {
	if len(rounds) == 0 {
		describeLists(s.Add(side+"-1"), ike.AuthRound{})
	}
	for i, r := range rounds {
		a := s.Add(side + "-" + strconv.Itoa(i+1))
		for _, option := range slices.Backward(r.Given) {
			backend, xauth := strings.CutPrefix(option, "xauth-")
			switch {
			case xauth:
				a.Set("xauth", backend)
			case option == "auth":
				if t := eapTypes[r.EAP]; r.Method == ike.AuthEAP && t != "" {
					a.Set("eap-type", t)
				}
				a.Set("class", r.Method.String())
			case option == "id":
				a.Set("id", r.ID.String())
			case option == "eap_id", option == "xauth_id":
				a.Set(option, r.EAPID.String())
			case option == "aaa_id":
				a.Set("aaa_id", r.AAAID.String())
			}
		}
		if !r.CAID.IsAny() {
			a.Set("ca_id", r.CAID.String())
		}
		switch r.Revocation {
		case ike.RevocationStrict:
			a.Set("revocation", "GOOD")
		case ike.RevocationIfURI:
			a.Set("revocation", "SKIPPED")
		}
		describeLists(a, r)
	}
}

func describeLists(a *conf.Section, r ike.AuthRound) {
	a.SetList("groups", r.Groups...)
	a.SetList("cert_policy", r.CertPolicies...)
	a.SetList("certs", append(subjects(r.Certs), keyNames(r)...)...)
	a.SetList("cacerts", subjects(r.CACerts)...)
}

// subjects are the names in certificates.
func subjects(list [][]byte) []string {
	var out []string
	for _, der := range list {
		if c, err := pki.NewCertificate(der); err == nil {
			out = append(out, subject(c))
		}
	}
	return out
}

func subject(c *pki.Certificate) string {
	return ike.Identity{Type: ike.IDDERASN1DN, Data: string(c.X509.RawSubject)}.String()
}

// keyNames stand for raw public keys: the identity of the round, or the key's own.
func keyNames(r ike.AuthRound) []string {
	var out []string
	for _, der := range r.Pubkeys {
		if k, err := pki.NewPublicKey(der); err == nil && r.ID.IsAny() {
			out = append(out, ike.Identity{Type: ike.IDKeyID, Data: string(k.KeyID[:])}.String())
		} else if err == nil {
			out = append(out, r.ID.String())
		}
	}
	return out
}

func action(a ike.StartAction) string {
	var names []string
	if a&ike.ActionTrap != 0 {
		names = append(names, "trap")
	}
	if a&ike.ActionStart != 0 {
		names = append(names, "start")
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, " | ")
}

func addrList(specs []ike.AddrSpec) []string {
	if len(specs) == 0 {
		return []string{"%any"}
	}
	out := make([]string, len(specs))
	for i, a := range specs {
		switch {
		case a.Any:
			out[i] = "%any"
		case a.Word != "":
			out[i] = a.Word
		case a.Host != "":
			out[i] = a.Host
		case a.From == a.To:
			out[i] = a.From.String()
		default:
			sel := ipsec.Selector{From: a.From, To: a.To, PortTo: 65535}
			out[i] = strings.Replace(sel.String(), "..", "-", 1)
		}
	}
	return out
}
