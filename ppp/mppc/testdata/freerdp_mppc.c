/*
 * An independent peer for the tests of package mppc: FreeRDP's RDP4 bulk compression has the same tokens, history and
 * flags as RFC 2118 (its flag bytes 80, 40, 20 are bits A, B, C).
 *
 *   apt-get install freerdp2-dev
 *   cc -o freerdp_mppc freerdp_mppc.c $(pkg-config --cflags --libs freerdp2 winpr2)
 *   ./freerdp_mppc record ../../../LICENSE > freerdp.txt    makes the vector file: lines of "FLAGS PACKET COMPRESSED"
 *   ./freerdp_mppc expand < lines                           lines of "FLAGS COMPRESSED" in, the packets out
 *
 * All fields are hexadecimal. "-" stands for an empty field.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <freerdp/codec/bulk.h>
#include <freerdp/codec/mppc.h>

#define ROOM 65536

static void print_hex(const BYTE *data, UINT32 size)
{
	for (UINT32 i = 0; i < size; i++)
		printf("%02x", data[i]);
	if (size == 0)
		printf("-");
}

static void record_packet(MPPC_CONTEXT *mppc, const BYTE *packet, UINT32 size)
{
	static BYTE source[ROOM], room[ROOM];
	BYTE *out = room;
	UINT32 out_size = ROOM, flags = 0;

	memcpy(source, packet, size);
	if (mppc_compress(mppc, source, size, &out, &out_size, &flags) < 0) {
		fprintf(stderr, "mppc_compress failed\n");
		exit(1);
	}
	if (!(flags & PACKET_COMPRESSED)) {
		out = source;
		out_size = size;
	}
	printf("%02x ", flags & 0xe0);
	print_hex(packet, size);
	printf(" ");
	print_hex(out, out_size);
	printf("\n");
}

/* Text in packets of growing size, then runs, noise, and text again: so that the history restarts and is flushed. */
static int record(const char *path)
{
	static BYTE text[ROOM], packet[ROOM];
	FILE *f = fopen(path, "rb");
	size_t size = f ? fread(text, 1, sizeof text, f) : 0;
	MPPC_CONTEXT *mppc = mppc_context_new(0, TRUE);
	unsigned noise = 1;

	if (!size || !mppc)
		return 1;
	for (size_t at = 0, n = 20; at + n <= size; at += n, n = n * 5 / 4 % 1500 + 20)
		record_packet(mppc, text + at, n);
	for (UINT32 n = 1; n < 1500; n = n * 2 + 1) {
		memset(packet, 0x80 + n % 128, n);
		record_packet(mppc, packet, n);
	}
	for (UINT32 n = 10; n < 700; n = n * 3) {
		for (UINT32 i = 0; i < n; i++) {
			noise = noise * 1103515245 + 12345;
			packet[i] = noise >> 16;
		}
		record_packet(mppc, packet, n);
		record_packet(mppc, text + n, 400);
		record_packet(mppc, text + n + 50, 400);
	}
	mppc_context_free(mppc);
	return 0;
}

static UINT32 parse_hex(const char *hex, BYTE *out)
{
	UINT32 n = 0;
	unsigned byte;

	if (strcmp(hex, "-") == 0)
		return 0;
	for (; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
		out[n] = byte;
	return n;
}

static int expand(void)
{
	static char hex[2 * ROOM + 1];
	static BYTE data[ROOM];
	unsigned flags;
	MPPC_CONTEXT *mppc = mppc_context_new(0, FALSE);

	if (!mppc)
		return 1;
	while (scanf("%x %131072s", &flags, hex) == 2) {
		BYTE *out = NULL;
		UINT32 size = parse_hex(hex, data), out_size = 0;

		if (mppc_decompress(mppc, data, size, &out, &out_size, flags) < 0) {
			printf("error\n");
			continue;
		}
		print_hex(out, out_size);
		printf("\n");
	}
	mppc_context_free(mppc);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "record") == 0)
		return record(argv[2]);
	if (argc == 2 && strcmp(argv[1], "expand") == 0)
		return expand();
	fprintf(stderr, "usage: freerdp_mppc record FILE | expand\n");
	return 2;
}
