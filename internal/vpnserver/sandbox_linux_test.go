package vpnserver_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"gateway/internal/sandbox"
	"gateway/internal/vpnserver"
)

// What a container's filter refuses makes both ends slower, and nothing else.
func TestTransferWhereTheKernelRefusesBatchesAndOffloads(t *testing.T) {
	refusals := slices.Concat(sandbox.NoBatches(unix.EPERM), sandbox.NoSegmentation(unix.EPERM), sandbox.NoReceiveOffload(unix.EPERM))
	if !sandbox.Enclose(t, refusals) {
		return
	}
	t.Run("L2TP", func(t *testing.T) {
		checkTransfer(t, dial(t, clientConfig(t, startServer(t, vpnserver.Config{}), "alice")).Stack(), 8<<20)
	})
	t.Run("L2TP/IPsec", func(t *testing.T) {
		checkTransfer(t, dial(t, ipsecClient(t, ipsecServer(t))).Stack(), 8<<20)
	})
}
