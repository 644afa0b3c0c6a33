package ipsecconf

import (
	"path/filepath"
	"slices"
	"strings"
)

// Copy is a file, or a directory of files, that must be put beside swanctl.conf.
type Copy struct {
	From    string // a file; with Dir, all files of a directory
	To      string // beside swanctl.conf; with Dir, a directory
	Dir     bool
	Private bool
	Command string // instead: a command that exports it, run in the directory of swanctl.conf
}

// copies collects them.
type copies struct {
	importer *importer
	list     []Copy
	names    map[string]string // where a name beside swanctl.conf comes from
	hasNSS   bool
}

// file notes a file to copy, and returns its name there. Two files of one name in
// different directories get different names.
func (c *copies) file(from, to string, private bool) string {
	if c.names == nil {
		c.names = map[string]string{}
	}
	name := filepath.Base(from)
	if strings.ContainsAny(name, `,#}"`) || name == "." || name == "/" {
		name = cleanName(name)
	}
	for {
		if known, taken := c.names[to+"/"+name]; !taken || known == from {
			break
		}
		name = "_" + name
	}
	if _, ok := c.names[to+"/"+name]; !ok {
		c.list = append(c.list, Copy{From: from, To: to + "/" + name, Private: private})
	}
	c.names[to+"/"+name] = from
	return name
}

// nss notes a certificate in Libreswan's database.
func (c *copies) nss(nick, file string) {
	if c.names == nil {
		c.names = map[string]string{}
	}
	if _, ok := c.names["x509/"+file]; ok {
		return
	}
	c.names["x509/"+file] = nick
	c.hasNSS = true
	c.list = append(c.list, Copy{To: "x509/" + file, Command: "certutil -L -a -d sql:/var/lib/ipsec/nss -n " + shellQuote(nick) + " > x509/" + shellQuote(file)})
}

func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// all are the copies, with the directories that strongSwan reads whole.
func (c *copies) all() []Copy {
	im := c.importer
	out := slices.Clone(c.list)
	if im.dialect == Libreswan {
		if c.hasNSS {
			for _, k := range c.list {
				if k.Command == "" {
					continue
				}
				nick := c.names[k.To]
				base := cleanName(nick)
				out = append(out, Copy{To: "pkcs12/" + base + ".p12", Private: true,
					Command: "pk12util -d sql:/var/lib/ipsec/nss -n " + shellQuote(nick) + " -o pkcs12/" + shellQuote(base+".p12") + " # if the key is ours; then secrets { pkcs12-1 { file = " + base + ".p12; secret = … } }"})
			}
			out = append(out, Copy{To: "x509ca/", Command: "certutil -L -d sql:/var/lib/ipsec/nss # for each CA (trust CT): certutil -L -a -n NAME > x509ca/NAME.pem"})
		}
		return out
	}
	for _, d := range []struct{ from, to string }{{"cacerts", "x509ca"}, {"ocspcerts", "x509ocsp"}, {"aacerts", "x509aa"}, {"acerts", "x509ac"}, {"crls", "x509crl"}} {
		from := filepath.Join(im.dir, d.from)
		if names, err := im.Files.Glob(from + "/*"); err == nil && len(names) > 0 {
			out = append(out, Copy{From: from, To: d.to, Dir: true})
		}
	}
	return out
}

// String is the command that does it, run in the directory of swanctl.conf.
func (c Copy) String() string {
	mode := "644"
	if c.Private {
		mode = "600"
	}
	switch {
	case c.Command != "":
		return c.Command
	case c.Dir:
		return "install -D -m " + mode + " -t " + shellQuote(c.To) + " " + shellQuote(c.From) + "/*"
	}
	return "install -D -m " + mode + " " + shellQuote(c.From) + " " + shellQuote(c.To)
}

// caFile notes the certificate of an authority.
func (im *importer) caFile(text string) string {
	from := text
	if !filepath.IsAbs(from) {
		from = filepath.Join(im.dir, "cacerts", text)
	}
	return im.copies.file(from, "x509ca", false)
}
