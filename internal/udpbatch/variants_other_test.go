//go:build !linux

package udpbatch

func variants() []variant { return portableVariants() }
