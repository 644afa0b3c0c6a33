package control

import (
	"fmt"
	"time"

	"adit/conf"
	"adit/ike"
)

// events publishes what happens to SAs to the clients that registered, in the order and
// with the keys of strongSwan. It runs on the gateway's thread: nothing is made that
// nobody wants, and publishing waits for nobody.
//
// strongSwan tells the end of an IKE SA before that of its Child SAs, the engine after
// it. So what ends with an IKE SA waits for its event, which comes of the same input.
type events struct {
	c    *controller
	held []ike.ChildDown // of the IKE SA that is ending
}

// limitHeld bounds what waits for the end of one IKE SA; more goes out before it.
const limitHeld = 4096

// endingState is how the engine lists an IKE SA that has ended.
const endingState = "DESTROYING"

func (ev *events) take(e ike.Event) {
	if down, ok := e.(ike.ChildDown); ok && down.SA.State == endingState && len(ev.held) < limitHeld {
		if !ev.wanted("child-updown") {
			return
		}
		if len(ev.held) > 0 && ev.held[0].SA.ID != down.SA.ID {
			ev.release()
		}
		ev.held = append(ev.held, down)
		return
	}
	switch e := e.(type) {
	case ike.IKEUp:
		ev.publish("ike-updown", func(m *conf.Section) {
			m.Set("up", "yes")
			describeIKE(m.Add(e.SA.Name), e.SA, time.Now())
		})
	case ike.IKEDown:
		if len(ev.held) > 0 && ev.held[0].SA.ID != e.SA.ID {
			ev.release()
		}
		ev.publish("ike-updown", func(m *conf.Section) { describeIKE(m.Add(e.SA.Name), ended(e.SA), time.Now()) })
		ev.release()
	case ike.IKERekeyed:
		ev.publish("ike-rekey", func(m *conf.Section) {
			s, now := m.Add(e.Old.Name), time.Now()
			if e.New.Initiator { // else charon shows the old one as it was
				e.Old.State = "REKEYING"
			}
			describeIKE(s.Add("old"), e.Old, now)
			describeIKE(s.Add("new"), e.New, now)
		})
	case ike.Moved:
		ev.publish("ike-update", func(m *conf.Section) {
			m.Set("local-host", e.SA.Local.Addr().String())
			m.Setf("local-port", "%d", e.SA.Local.Port())
			m.Set("remote-host", e.SA.Remote.Addr().String())
			m.Setf("remote-port", "%d", e.SA.Remote.Port())
			was := e.SA
			was.Local, was.Remote = e.OldLocal, e.Old
			describeIKE(m.Add(was.Name), was, time.Now())
		})
	case ike.ChildUp:
		ev.publish("child-updown", func(m *conf.Section) {
			m.Set("up", "yes")
			ev.child(m, e.SA, e.Child)
		})
	case ike.ChildDown:
		ev.childDown(e)
	case ike.ChildRekeyed:
		ev.publish("child-rekey", func(m *conf.Section) {
			s, now := m.Add(e.SA.Name), time.Now()
			describeIKE(s, e.SA, now)
			pair := s.Add("child-sas").Add(e.Old.Name)
			e.Old.State = "REKEYED"
			ev.c.describeChild(pair.Add("old"), e.Old, now)
			ev.c.describeChild(pair.Add("new"), e.New, now)
		})
	}
}

func (ev *events) release() {
	held := ev.held
	ev.held = nil
	for _, e := range held {
		ev.childDown(e)
	}
}

// childDown shows a child as strongSwan does: DELETED, but as it was where its IKE SA ended.
func (ev *events) childDown(e ike.ChildDown) {
	ev.publish("child-updown", func(m *conf.Section) {
		if e.SA.State != endingState && (e.Child.State == "INSTALLED" || e.Child.State == "REKEYING" || e.Child.State == "DELETING") {
			e.Child.State = "DELETED"
		}
		ev.child(m, ended(e.SA), e.Child)
	})
}

func (ev *events) child(m *conf.Section, sa ike.SAInfo, ch ike.ChildInfo) {
	s, now := m.Add(sa.Name), time.Now()
	describeIKE(s, sa, now)
	ev.c.describeChild(s.Add("child-sas").Add(fmt.Sprintf("%s-%d", ch.Name, ch.ID)), ch, now)
}

// ended shows an IKE SA that has ended as strongSwan does.
func ended(sa ike.SAInfo) ike.SAInfo {
	if sa.State == endingState {
		sa.State = "DELETING"
	}
	return sa
}

func (ev *events) wanted(name string) bool { return ev.c.srv.Wanted(name) }

// publish sends an event if anybody registered for it. What is too long for VICI is not
// sent: it is in the log.
func (ev *events) publish(name string, body func(m *conf.Section)) {
	if !ev.wanted(name) {
		return
	}
	m := conf.New("")
	body(m)
	_ = ev.c.srv.Publish(name, m)
}
