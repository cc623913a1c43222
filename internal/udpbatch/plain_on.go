//go:build plain

package udpbatch

// plain says that every socket of this build moves one datagram a call, as if Config.DisableBatch, DisableGSO and DisableGRO were set
// everywhere. The tests are run so, too (`make test-plain`): they must not depend on what is there to be fast.
const plain = true
