package main

import (
	"errors"
	"testing"

	"gateway/internal/udpbatch"
)

func TestHowTheDemoServerSends(t *testing.T) {
	for send, want := range map[string]udpbatch.Config{
		"gso": {}, "mmsg": {DisableGSO: true}, "one": {DisableGSO: true, DisableBatch: true},
	} {
		if got, err := sendingSocket(send); err != nil || got != want {
			t.Errorf("--send %s: %+v, %v", send, got, err)
		}
	}
	_, err := sendingSocket("all")
	if wrong := (*usageError)(nil); !errors.As(err, &wrong) {
		t.Errorf("--send all: %v", err)
	}
}
