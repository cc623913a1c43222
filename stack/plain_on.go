//go:build plain

package stack

// plain says that every stack of this build handles one packet at a time, as if Config.DisableGSO and DisableGRO were set everywhere.
// The tests are run so, too (`make test-plain`): they must not depend on what is there to be fast.
const plain = true
