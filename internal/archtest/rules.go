package archtest

// anything marks a room that may import every other.
var anything = []string{"*"}

// Imports is the import table: which rooms of the module a room may import, by
// directory ("." is the module's root). A package that isn't listed is an error. A
// room with "*" may import all; tests may, too, and are not looked at.
var Imports = map[string][]string{
	// L0: the standard library, x/crypto, x/sys and one library each; they know nobody.
	"suite":            {"suite/gcm"},
	"suite/gcm":        nil,
	"suite/wycheproof": nil, // tests alone
	"suite/sig":        nil,
	"ike/wire":         nil,
	"conf":             nil,
	"radius":           nil,
	"pki":              {"suite/sig"},
	"pki/pkitest":      {"pki"},
	"tun":              {"internal/kernel", "tun/ring"},
	"tun/ring":         nil,
	"tun/netstack":     {"tun"},
	"internal/conn":    {"internal/kernel"},
	"internal/kernel":  nil,
	"internal/hostnet": nil,
	"internal/proxy":   nil,
	"internal/logging": nil,
	"internal/dhcp":    nil,

	// L1
	"ipsec":        {"suite"},
	"ipsec/dptest": {"ipsec", "suite"},
	"esp":          {"ipsec", "suite", "internal/simbug"},
	"vici":         {"conf"},
	"eap":          {"suite"},

	"radius/radiustest":      nil, // runs FreeRADIUS for tests
	"internal/acme/acmetest": nil, // runs Pebble for tests

	// L2
	"ike": {"ike/wire", "ipsec", "suite", "internal/simbug"},

	// L3: the versions never import each other.
	"ike/ikev1":           {"ike", "ike/wire", "ipsec", "suite"},
	"ike/ikev2":           {"ike", "ike/wire", "ipsec", "suite", "suite/sig", "internal/simbug"},
	"dataplane/userspace": {"ipsec", "esp", "tun", "internal/conn"},
	"dataplane/xfrm":      {"ipsec"},
	"internal/config":     {"conf", "ike", "ike/wire", "ipsec", "suite", "suite/sig", "pki", "internal/users"},

	"internal/users":     {"eap", "suite"},
	"internal/ca":        {"pki"},
	"internal/acme":      {"internal/config", "internal/ca", "conf", "pki"},
	"internal/profile":   {"internal/config", "ike", "ike/wire", "suite", "conf", "pki"},
	"internal/download":  nil,
	"internal/capture":   {"ike", "ipsec", "suite"},
	"internal/updown":    {"ike", "ipsec"},
	"internal/ipsecconf": {"conf", "internal/config", "suite"},

	// L4: sees ipsec.Dataplane, never a concrete backend; is given the versions of IKE.
	"internal/gateway": {"ike", "ike/wire", "internal/config", "ipsec", "suite", "suite/sig",
		"internal/conn", "internal/hostnet", "internal/updown", "internal/users", "internal/dhcp", "pki", "eap", "radius"},

	// L5
	"internal/explain": {"internal/gateway", "ike", "ipsec", "conf"},
	"internal/control": {"internal/gateway", "internal/explain", "internal/logging", "internal/config", "ike", "ike/wire", "ipsec", "suite", "conf", "vici", "pki", "internal/users", "internal/acme"},
	"internal/web":     {"internal/gateway"},
	"internal/cluster": {"internal/gateway"},

	// L6
	".":                      anything,
	"client":                 anything,
	"internal/demo":          anything,
	"internal/bench":         anything,
	"internal/bench/traffic": nil,
	"internal/bench/tunnel":  anything,
	"cmd/adit":               anything,

	// Beside the product: tests and their tools.
	"internal/sim":      anything,
	"internal/attack":   nil, // tests alone
	"internal/vendors":  nil, // tests alone
	"internal/simbug":   nil,
	"internal/archtest": nil,
	"docs":              nil, // tests alone: pages against the program
	"packaging":         nil, // tests alone
	"packaging/image":   nil,
	"interop":           anything,
	"interop/lab":       nil,
	"interop/peer":      {"interop/lab"},
}

// anywhere marks a library that every room may import that isn't a protocol room.
var anywhere = []string{"*"}

// Libraries says which rooms may import a foreign module: few, and each in one
// place. Subdirectories of a room count as the room only if they are listed. A
// module that isn't listed may be imported by tests alone.
var Libraries = map[string][]string{
	"golang.org/x/crypto":            {"*", "suite", "suite/sig", "esp", "eap", "ike", "ike/ikev1", "ike/ikev2"},
	"golang.org/x/sys":               {"*", "suite", "suite/gcm", "esp"}, // suite and esp: cpu features
	"golang.org/x/net":               anywhere,
	"golang.org/x/sync":              anywhere,
	"filippo.io/bigmod":              {"suite"},
	"github.com/cloudflare/circl":    {"suite", "suite/sig", "pki", "pki/pkitest"},
	"software.sslmate.com/src":       {"pki"},
	"github.com/coreos/go-systemd":   {"cmd/adit", "internal/gateway"},
	"github.com/google/nftables":     {"internal/hostnet"},
	"github.com/godbus/dbus":         {"internal/hostnet"}, // systemd-resolved
	"github.com/vishvananda/netlink": {"internal/hostnet", "dataplane/xfrm", "interop/lab"},
	"github.com/vishvananda/netns":   {"internal/hostnet", "dataplane/xfrm", "interop/lab"},
	"github.com/spf13/cobra":         {"cmd/adit"},
	"github.com/piglig/go-qr":        {"cmd/adit"},
	"github.com/mholt/acmez":         {"internal/acme"},
	"github.com/spf13/pflag":         {"cmd/adit"},
	"github.com/strongswan/govici":   {"interop", "interop/peer"},
	"github.com/gopacket/gopacket":   {"interop", "internal/sim"},
	"gvisor.dev/gvisor":              {"tun/netstack"},
	"github.com/cilium/ebpf":         {"tun/ring"},
	"github.com/nats-io":             {"internal/cluster"},
	"github.com/prometheus":          {"internal/web"},
	"github.com/mdlayher/netlink":    {"internal/hostnet"}, // the connection type of google/nftables
}

// Protocol are the sans-I/O rooms: no I/O, clock, goroutine, lock or environment.
var Protocol = []string{"ike", "ike/wire", "ike/ikev1", "ike/ikev2", "ipsec", "suite", "suite/gcm", "suite/sig", "esp", "eap"}

// forbiddenImports are what no protocol room may import, with the reason. A path
// that ends in "/" stands for everything below it.
var forbiddenImports = map[string]string{
	"net":         "I/O; net/netip is fine",
	"net/":        "I/O; net/netip is fine",
	"os":          "the environment",
	"os/":         "the environment",
	"context":     "a sign of blocking",
	"sync":        "locks",
	"sync/":       "locks",
	"log":         "logging; return events",
	"log/":        "logging; return events",
	"math/rand":   "predictable; crypto/rand",
	"math/rand/":  "predictable; crypto/rand",
	"unsafe":      "unsafe",
	"syscall":     "the environment",
	"runtime/cgo": "the environment",
}

// permittedImports are the exceptions from forbiddenImports, by room; "" is every
// protocol room. A file of eap whose name begins with "tls" may also do what
// crypto/tls needs (it blocks, so it is driven over a pipe).
var permittedImports = map[string][]string{
	"":    {"net/netip"},
	"esp": {"sync/atomic"},
}

// forbiddenTime are the names of package time that read or wait for the clock.
var forbiddenTime = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}

// Unfuzzed are exported parsers without a fuzz target of their own, by
// "directory.Name", each with the reason.
var Unfuzzed = map[string]string{
	"internal/config.DecodeBeside": "does what the fuzzed Decode does, and reads the files that Load reads",
	"conf.ParseFile":               "takes a path; reads the file and does what the fuzzed Parse does",
}

// unparsed are rooms whose parsers read no hostile input.
var unparsed = []string{"interop", "interop/lab", "interop/peer", "internal/sim", "internal/archtest", "internal/demo", "internal/bench", "internal/bench/traffic", "internal/bench/tunnel", "cmd/adit"}

// Sizes of files, in lines.
const (
	warnLines = 600
	maxLines  = 800
)

// emptyWords are parts of names that say nothing about what is inside.
var emptyWords = []string{"manager", "helper", "util", "common"}
