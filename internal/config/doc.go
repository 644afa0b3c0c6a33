// Package config turns a conf tree into the typed model of connections, secrets,
// certificates, keys, pools and authorities, with strongSwan's option names, units
// and defaults. A file and a VICI message body are the same tree, so there is one
// decoder, one set of messages.
//
// It knows every option of strongSwan's swanctl.conf: what adit does not build
// yet is refused by name, never ignored. It opens files only through conf.Files
// and acts on nothing. Start with Load in load.go; the tables of options are in
// options.go, auth.go and daemon.go; peer.go decodes connections, secret.go shared
// secrets, credentials.go the directories of certificates and keys.
package config
