package radiustest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// write makes a complete configuration directory.
func write(dir string, cfg Config) error {
	if cfg.Secret == "" || !cfg.Listen.IsValid() || cfg.Listen.Port() == 0 {
		return errors.New("a server needs a secret and an address with a port")
	}
	if err := plain(dir, cfg); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"dictionary":   "$INCLUDE /usr/share/freeradius/dictionary\n",
		"radiusd.conf": radiusd(dir, cfg),
		"users":        users(cfg.Users),
		"replies":      replies(cfg.Users),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// quote writes a string; plain has seen to it that nothing needs escaping.
func quote(s string) string { return `"` + s + `"` }

// plain refuses what FreeRADIUS would take for quoting, escapes or variables, which
// its files treat each in their own way.
func plain(dir string, cfg Config) error {
	ss := []string{dir, cfg.Secret, cfg.CAFile, cfg.CertFile, cfg.KeyFile}
	for _, u := range cfg.Users {
		ss = append(ss, u.Name, u.Password)
	}
	for _, s := range ss {
		if strings.ContainsAny(s, "\"'\\%${}\n") {
			return fmt.Errorf("%q: quotes, backslashes, percent and dollar signs and braces are not for FreeRADIUS's files", s)
		}
	}
	return nil
}

func users(us []User) string {
	var b strings.Builder
	for _, u := range us {
		if u.Password != "" {
			fmt.Fprintf(&b, "%s Cleartext-Password := %s\n\n", quote(u.Name), quote(u.Password))
		}
	}
	return b.String()
}

func replies(us []User) string {
	var b strings.Builder
	for _, u := range us {
		if len(u.Reply) > 0 {
			fmt.Fprintf(&b, "%s\n\t%s\n\n", quote(u.Name), strings.Join(u.Reply, ",\n\t"))
		}
	}
	return b.String()
}

func clients(cfg Config) string {
	ps := cfg.Clients
	if len(ps) == 0 {
		ps = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	var b strings.Builder
	for i, p := range ps {
		family := "ipv4addr"
		if p.Addr().Is6() {
			family = "ipv6addr"
		}
		fmt.Fprintf(&b, "client c%d {\n\t%s = %v\n\tsecret = %s\n\trequire_message_authenticator = yes\n}\n",
			i, family, p, quote(cfg.Secret))
	}
	return b.String()
}

func listen(cfg Config) string {
	a := cfg.Listen
	family := "ipv4addr"
	if a.Addr().Is6() {
		family = "ipv6addr"
	}
	text := fmt.Sprintf("\tlisten {\n\t\ttype = auth\n\t\t%s = %v\n\t\tport = %d\n\t}\n", family, a.Addr(), a.Port())
	if cfg.Accounting {
		text += fmt.Sprintf("\tlisten {\n\t\ttype = acct\n\t\t%s = %v\n\t\tport = %d\n\t}\n\tpreacct {\n\t}\n\taccounting {\n\t\tdetail\n\t}\n", family, a.Addr(), a.Port()+1)
	}
	return text
}

func eap(cfg Config) string {
	first := cfg.DefaultEAP
	if first == "" {
		first = "md5"
	}
	text := fmt.Sprintf(`	eap {
		default_eap_type = %s
		timer_expire = 60
		ignore_unknown_eap_types = no
		max_sessions = 4096
		md5 {
		}
		gtc {
			auth_type = PAP
		}
		mschapv2 {
		}
`, first)
	if cfg.CertFile != "" {
		tlsMax := cfg.TLSMax
		if tlsMax == "" {
			tlsMax = "1.2"
		}
		text += fmt.Sprintf(`		tls-config files {
			ca_file = %s
			certificate_file = %s
			private_key_file = %s
			tls_min_version = "1.2"
			tls_max_version = "%s"
			cache {
				enable = no
			}
		}
		tls {
			tls = files
		}
		ttls {
			tls = files
			default_eap_type = mschapv2
			virtual_server = inner
		}
		peap {
			tls = files
			default_eap_type = mschapv2
			virtual_server = inner
		}
`, quote(cfg.CAFile), quote(cfg.CertFile), quote(cfg.KeyFile), tlsMax)
	}
	return text + "\t}\n"
}

func radiusd(dir string, cfg Config) string {
	return fmt.Sprintf(`name = freeradius
prefix = /usr
confdir = %[1]s
raddbdir = %[1]s
logdir = %[1]s
radacctdir = %[1]s
run_dir = %[1]s
db_dir = %[1]s
libdir = /usr/lib/freeradius
pidfile = %[1]s/freeradius.pid
max_request_time = 30
cleanup_delay = 5
max_requests = 65536
hostname_lookups = no
proxy_requests = no
log {
	destination = files
	file = %[1]s/radius.log
	auth = yes
}
security {
	max_attributes = 200
	reject_delay = 0
	status_server = yes
	allow_vulnerable_openssl = yes
}
thread pool {
	start_servers = 2
	max_servers = 4
	min_spare_servers = 1
	max_spare_servers = 4
}
`, dir) + clients(cfg) + "modules {\n" + eap(cfg) + `	pap {
	}
	mschap {
		use_mppe = yes
	}
	files {
		usersfile = ${confdir}/users
	}
	files replies {
		postauth_usersfile = ${confdir}/replies
	}
	detail {
		filename = ${confdir}/acct
		permissions = 0600
	}
}
server outer {
` + listen(cfg) + authorize + `	post-auth {
		update reply {
			&Message-Authenticator := 0x00
		}
		replies
		Post-Auth-Type REJECT {
			update reply {
				&Message-Authenticator := 0x00
			}
			eap
		}
	}
}
server inner {
` + authorize + "}\n"
}

const authorize = `	authorize {
		mschap
		eap {
			ok = return
		}
		files
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
		Auth-Type MS-CHAP {
			mschap
		}
		mschap
		eap
	}
`
