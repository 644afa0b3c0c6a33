package config

import (
	"cmp"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"adit/conf"
	"adit/ike"
	"adit/ipsec"
)

// defaultVICI is strongSwan's socket.
const defaultVICI = "unix:///var/run/charon.vici"

// defaultDaemonFile is read if it exists and nothing names another one.
const defaultDaemonFile = "/etc/strongswan.conf"

// DaemonFile is the strongswan.conf to read: the one named, else that of
// $STRONGSWAN_CONF (which may be set and empty: none), else /etc/strongswan.conf
// if there is one. Empty: none.
func DaemonFile(named string) string {
	if named != "" {
		return named
	}
	if path, ok := os.LookupEnv("STRONGSWAN_CONF"); ok {
		return path
	}
	if _, err := os.Stat(defaultDaemonFile); err != nil {
		return ""
	}
	return defaultDaemonFile
}

// LoadDaemon reads a strongswan.conf; an empty path gives the defaults. Of the sections
// that daemonSections names, later ones count more. What adit does not read in charon gives a warning, an
// unknown option in adit is an error; other sections belong to other programs.
func LoadDaemon(path string) (Daemon, error) {
	if path == "" {
		return DecodeDaemon(conf.New(""))
	}
	var warnings []Warning
	p := conf.Parser{Files: conf.OS, Warn: func(pos conf.Pos, msg string) { warnings = append(warnings, Warning{pos, msg}) }}
	root, err := p.Parse(path)
	if err != nil {
		return Daemon{}, err
	}
	d, err := DecodeDaemon(root)
	d.Warnings = append(warnings, d.Warnings...)
	told := map[string]bool{}
	secret := func(file string) {
		if w, open := readable(file); open && !told[file] {
			told[file] = true
			d.Warnings = append(d.Warnings, w)
		}
	}
	for _, r := range d.RADIUS {
		secret(r.Pos.File)
	}
	for _, a := range d.ACME {
		if len(a.EABKey) > 0 {
			secret(a.Pos.File)
		}
	}
	return d, err
}

// DecodeDaemon decodes the settings out of a tree.
func DecodeDaemon(root *conf.Section) (Daemon, error) {
	dm := Daemon{
		VICISocket: defaultVICI, Port: 500, NATPort: 4500, RoutingTable: 220, RoutingTablePrio: 220, InstallRoutes: true,
		Retransmit: ike.Retransmit{Timeout: 4 * time.Second, Base: 1.8, Tries: 5},
		KeepAlive:  20 * time.Second, HalfOpenTimeout: 30 * time.Second,
		CookieThreshold: 30, CookieThresholdIP: 3, BlockThreshold: 5, DeleteRekeyedDelay: 5 * time.Second,
		ReplayWindow: defaultReplayWindow, FragmentSize: 1280, MaxPacket: 10000, Leases: Leases{Reclaim: 24 * time.Hour},
		LockIdentity: 10, LockSource: 50,
		Accounting: Accounting{DAEListen: netip.IPv4Unspecified(), DAEPort: 3799},
	}
	d := &decoder{}
	for _, name := range daemonSections {
		s := root.Sub(name)
		d.decodeSettings(&dm, s, name == "adit")
		d.decodeAttributes(&dm, s)
		d.decodeLogs(&dm, s)
		if name == "adit" {
			d.decodeACME(&dm, s.Sub("acme"))
		}
		if r := s.Sub("plugins").Sub("eap-radius"); r != nil {
			d.decodeRADIUS(&dm, r)
		}
	}
	dm.complete(d)
	dm.Warnings = d.warnings
	return dm, d.err()
}

// limitSPIs is the least number of SPIs that a range must have: they must not come
// again while Child SAs have them.
const limitSPIs = 1 << 16

// complete is what options mean together.
func (dm *Daemon) complete(d *decoder) {
	if dm.unprotected {
		dm.CookieThreshold, dm.CookieThresholdIP, dm.BlockThreshold = math.MaxInt32, math.MaxInt32, math.MaxInt32
	}
	if dm.resolve.on {
		dm.ResolveFile = cmp.Or(dm.resolve.file, "/etc/resolv.conf")
	}
	if h := dm.Habits; h.SPIMax != 0 && uint64(h.SPIMax) < uint64(max(h.SPIMin, ipsec.MinSPI))+limitSPIs-1 {
		d.failf(conf.Pos{}, "charon.spi_min, charon.spi_max: from %v to %v are fewer than %d SPIs", h.SPIMin, h.SPIMax, limitSPIs)
	}
}

// daemonSections are the sections of strongswan.conf that count, the later ones more:
// libstrongswan has what holds for all programs, and charon-systemd is what charon is called where systemd starts it.
var daemonSections = []string{"libstrongswan", "charon", "charon-systemd", "adit"}

// elsewhere are the sections that have decoders of their own.
var elsewhere = []string{"filelog", "syslog", "journal", "plugins", "plugins.attr", "plugins.eap-radius", "imcv", "tnc"}

// limitSettings bounds how deep sections of settings are looked into.
const limitSettings = 8

// decodeSettings reads one section of strongswan.conf. An option that nobody knows is
// an error in `adit`, and a warning in charon's sections, whose options are many.
func (d *decoder) decodeSettings(dm *Daemon, s *conf.Section, own bool) {
	d.settings(dm, s, "", daemonOptions, own, 0)
	for sub := range s.Sub("plugins").Sections() {
		d.settings(dm, sub, sub.Name+".", pluginOptions, own, 0)
	}
}

func (d *decoder) settings(dm *Daemon, s *conf.Section, prefix string, table []option[Daemon], own bool, depth int) {
	if plugin := strings.TrimSuffix(prefix, "."); slices.Contains(elsewhere, "plugins."+plugin) && &table[0] == &pluginOptions[0] {
		return
	}
	for v := range s.Values() {
		o := lookup(table, prefix+v.Key)
		if v.Key == "load" && prefix != "" && (o == nil || o.name != prefix+v.Key) {
			o = &option[Daemon]{state: Accepted} // of any plugin: Debian's files have it of each
		}
		switch {
		case o != nil:
			apply(d, dm, o, v)
		case own:
			d.failf(v.Pos, "%s: unknown option%s", v.Path(), didYouMean(prefix+v.Key, names(table)))
		default:
			d.warn(v.Pos, v.Path()+" has no effect: adit knows no such option"+didYouMean(prefix+v.Key, names(table)))
		}
	}
	for sub := range s.Sections() {
		if name := prefix + sub.Name; depth < limitSettings && !(depth == 0 && (slices.Contains(elsewhere, name) || own && name == "acme")) {
			d.settings(dm, sub, name+".", table, own, depth+1)
		}
	}
}
