package config

import (
	"errors"
	"fmt"
	"strings"

	"adit/conf"
	"adit/internal/users"
	"adit/suite"
)

// users reads the file of users. With an error in it nothing is loaded: without its
// users nobody would get in, and one who was taken away would not be noticed.
func (d *decoder) users(m *Model) {
	list, err := users.Read(d.dir)
	if err != nil {
		d.fail(err)
		return
	}
	m.Users = list
}

// usersPerStep is how many bytes of users go into one VICI message, which has a bound.
const usersPerStep = 128 << 10

// UserSteps are the commands that give a gateway its users, all of them: adit's own
// load-users, in parts. The last one has them take effect.
func UserSteps(list []users.User) (steps []Step) {
	body, size, n := conf.New(""), 0, 0
	end := func(last bool) {
		body.Setf("part", "%d", n)
		if n++; last {
			body.Setf("count", "%d", len(list))
		}
		steps = append(steps, Step{Command: "load-users", Body: body, What: fmt.Sprintf("users, part %d", n)})
		body, size = conf.New(""), 0
	}
	for _, u := range list {
		cost := len(u.Name) + len(u.NT) + len(strings.Join(u.Groups, " ")) + 64
		if size += cost; size > usersPerStep {
			end(false)
			size = cost
		}
		s := body.Add(u.Name)
		s.Set("nt", string(u.NT))
		if len(u.Groups) > 0 {
			s.SetList("groups", u.Groups...)
		}
	}
	end(true)
	if len(steps) == 1 {
		steps[0].What = "users"
	}
	return steps
}

// DecodeUsers decodes the body of load-users: users, the number of the part, and with
// the last part of how many users in all they are (else -1).
func DecodeUsers(body *conf.Section) (list []users.User, part, count int, err error) {
	part, count = -1, -1
	for v := range body.Values() {
		n, err := v.Uint(users.MaxUsers)
		if err != nil {
			return nil, 0, 0, bare(err)
		}
		switch v.Key {
		case "part":
			part = int(n)
		case "count":
			count = int(n)
		default:
			return nil, 0, 0, fmt.Errorf("%.64q is no part of load-users", v.Key)
		}
	}
	if part < 0 {
		return nil, 0, 0, errors.New("number of the part missing")
	}
	for s := range body.Sections() {
		u := users.User{Name: s.Name, NT: suite.Key(s.Text("nt"))}
		if err := errors.Join(users.CheckName(u.Name), u.Check()); err != nil {
			users.Zero(list)
			return nil, 0, 0, err
		}
		if v, ok := s.Get("groups"); ok {
			if err := u.SetGroups(v.List); err != nil {
				users.Zero(list)
				return nil, 0, 0, err
			}
		}
		list = append(list, u)
	}
	return list, part, count, nil
}
