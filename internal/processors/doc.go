// Package processors lets a program run on as few processors as do its work.
//
// A packet wakes one goroutine after the other: the carrier's loop, TCP, the relay. With a processor each, every such wake-up is a
// system call and a switch of threads, and idle processors spin in wait of more; on one processor it is a function call. That costs
// a quarter to a third less CPU time, and on a machine that has other work to do is no slower (docs/performance.md).
package processors
