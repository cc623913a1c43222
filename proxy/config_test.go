package proxy

import (
	"errors"
	"strings"
	"testing"
)

func TestOpenListenerNeedsUserOrPermission(t *testing.T) {
	for _, test := range []struct {
		address string
		users   int
		open    bool
		refused bool
	}{
		{"127.0.0.1:1080", 0, false, false},
		{"127.9.9.9:0", 0, false, false},
		{"[::1]:1080", 0, false, false},
		{"[::ffff:127.0.0.1]:1080", 0, false, false},
		{"localhost:1080", 0, false, false},
		{"0.0.0.0:1080", 0, false, true},
		{":1080", 0, false, true},
		{"[::]:1080", 0, false, true},
		{"192.0.2.1:1080", 0, false, true},
		{"gateway.example:1080", 0, false, true},
		{"localhost.example:1080", 0, false, true},
		{"0.0.0.0:1080", 1, false, false},
		{"0.0.0.0:1080", 0, true, false},
	} {
		err := CheckListen(test.address, test.users, test.open)
		var open *OpenListenError
		if errors.As(err, &open) != test.refused || (err != nil) != test.refused {
			t.Errorf("%s, %d users, open %v: %v", test.address, test.users, test.open, err)
		}
		if open != nil && (open.Stage() != "proxy" || !strings.Contains(open.Advice(), "allow_open") || !strings.Contains(open.Error(), test.address)) {
			t.Errorf("%s: stage %q, advice %q, error %q", test.address, open.Stage(), open.Advice(), open)
		}
	}
	if err := CheckListen("1080", 1, true); err == nil {
		t.Error("an address without a host is accepted")
	}
}

func TestConfigThatCannotWorkIsRefused(t *testing.T) {
	long := strings.Repeat("x", 256)
	for about, c := range map[string]Config{
		"no dialer":      {},
		"empty name":     {Dialer: failWith(nil), Users: []User{{Password: "p"}}},
		"long name":      {Dialer: failWith(nil), Users: []User{{Name: long, Password: "p"}}},
		"colon":          {Dialer: failWith(nil), Users: []User{{Name: "a:b", Password: "p"}}},
		"empty password": {Dialer: failWith(nil), Users: []User{{Name: "a"}}},
		"long password":  {Dialer: failWith(nil), Users: []User{{Name: "a", Password: long}}},
	} {
		_, err := New(c)
		if err == nil {
			t.Errorf("%s: accepted", about)
		} else if strings.Contains(err.Error(), long) {
			t.Errorf("%s: the error shows the password or an endless name: %v", about, err)
		}
	}
}

func TestAnyOfSeveralUsersMayComeAndNobodyElse(t *testing.T) {
	c := newCredentials([]User{{"alice", "alice-secret"}, {"bob", `b0b's pass word #1; $HOME & "more"`}, {"alice", "second"}})
	for _, test := range []struct {
		name, password string
		want           bool
	}{
		{"alice", "alice-secret", true},
		{"bob", `b0b's pass word #1; $HOME & "more"`, true},
		{"alice", "second", true},
		{"alice", "", false},
		{"alice", "alice-secre", false},
		{"Alice", "alice-secret", false},
		{"bob", "alice-secret", false},
		{"", "", false},
	} {
		if got := c.Valid(test.name, test.password); got != test.want {
			t.Errorf("%q %q: %v", test.name, test.password, got)
		}
	}
}
