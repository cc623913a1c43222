//go:build !race

package vpnserver_test

const raceEnabled = false
