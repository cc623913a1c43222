/*
 * User Mode Linux 6.1 keeps 2696 bytes of extended processor state for each
 * of its processes, and the host's kernel takes back only the whole of it
 * (PTRACE_SETREGSET fails with EFAULT otherwise).  On a processor with AMX the
 * whole is about 11 KiB, so the guest panics with "ptrace set fp regs failed".
 * Preloaded into the guest, this fills up what is missing with the initial
 * state: no program of the lab uses AMX.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

enum { HEADER = 512, AMX = 3 << 17 }; /* XSTATE_BV begins the header */

/* One processor, one thread: a static buffer spares the guest's small stacks. */
static union {
	unsigned char bytes[16384];
	uint64_t align;
} state;

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request, ...);
	va_list ap;
	va_start(ap, request);
	pid_t pid = va_arg(ap, pid_t);
	void *addr = va_arg(ap, void *);
	void *data = va_arg(ap, void *);
	va_end(ap);
	if (!next)
		next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");

	struct iovec *iov = data;
	if (request != PTRACE_SETREGSET || addr != (void *)NT_X86_XSTATE ||
	    iov->iov_len < HEADER + 64 || iov->iov_len > sizeof(state.bytes))
		return next(request, pid, addr, data);

	struct iovec whole = {state.bytes, sizeof(state.bytes)};
	long result = next(PTRACE_GETREGSET, pid, addr, &whole); /* for its length */
	if (result < 0 || whole.iov_len <= iov->iov_len)
		return next(request, pid, addr, data);
	memset(state.bytes + iov->iov_len, 0, whole.iov_len - iov->iov_len);
	memcpy(state.bytes, iov->iov_base, iov->iov_len);
	uint64_t present;
	memcpy(&present, state.bytes + HEADER, sizeof(present));
	present &= ~(uint64_t)AMX;
	memcpy(state.bytes + HEADER, &present, sizeof(present));
	return next(request, pid, addr, &whole);
}
