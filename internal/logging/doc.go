// Package logging spreads log lines to targets: standard error as text or JSON,
// files, syslog and the journal, each with levels of its own, and a ring of what was
// last said.
//
// It owns the targets' formats, the levels by group, connection and peer and their
// change at run time. It must not know what is logged nor who configures it. A target
// that stalls stalls nobody: each has a bounded queue and a thread, and what does not
// fit is lost, counted and told. No text of a peer can forge a line: control
// characters are written as escapes everywhere.
//
// Groups and levels are strongSwan's (IKE, CHD, NET …; 0 audit, 1 control, 2 detail);
// a line that comes with none belongs to DMN. Start reading at [Hub].
package logging
