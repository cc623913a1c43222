// Package mppc implements Microsoft Point-To-Point Compression (RFC 2118): an LZ77 code over a history of 8192 bytes that
// both sides keep alike, packet by packet.
//
// A Compressor turns the protocol field and information of a PPP packet into tokens (section 4), a Decompressor turns
// them back. Neither counts packets: the coherency count, loss and Reset-Requests are the matter of package mppe, which
// carries compressed and encrypted packets alike. Both are pure codecs without goroutines, for one goroutine at a time,
// and allocate nothing per packet.
package mppc
