/*
 * Lets a user-mode Linux up to 6.12 run on processors whose extended state is larger than it knows (AMX).
 *
 * Such a kernel keeps 2696 octets of a process's XSAVE area. The host refuses to load an area of any size but its own
 * (EFAULT: "ptrace set fp regs failed, errno = 14"), so the guest dies on its first process. This library stands
 * between the two when preloaded: reads are cut to what the guest has room for, writes are completed with what the
 * process already holds. AMX tiles are left out; nothing can use them without asking the host first.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

enum {
	HEADER = 512,             /* XSAVE header: which components follow */
	KNOWN = (1 << 10) - 1,    /* x87 to PKRU, all that fits in 2696 octets */
};

/* One is enough: the kernel that calls has a single processor and makes these calls outside signal handlers. */
static unsigned char area[64 << 10] __attribute__((aligned(64)));

static long regset(long request, pid_t pid, struct iovec *iov)
{
	return syscall(SYS_ptrace, request, pid, (void *)NT_X86_XSTATE, iov);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list ap;
	pid_t pid;
	void *addr, *data;

	va_start(ap, request);
	pid = va_arg(ap, pid_t);
	addr = va_arg(ap, void *);
	data = va_arg(ap, void *);
	va_end(ap);

	if ((request == PTRACE_GETREGSET || request == PTRACE_SETREGSET) && (uintptr_t)addr == NT_X86_XSTATE) {
		struct iovec *guest = data, host = { area, sizeof area };
		size_t n;

		if (regset(PTRACE_GETREGSET, pid, &host) < 0)
			return -1;
		n = guest->iov_len < host.iov_len ? guest->iov_len : host.iov_len;
		if (request == PTRACE_GETREGSET) {
			memcpy(guest->iov_base, area, n);
			guest->iov_len = n;
			return 0;
		}
		memcpy(area, guest->iov_base, n);
		if (n < host.iov_len) {
			uint64_t present;

			memcpy(&present, area + HEADER, sizeof present);
			present &= KNOWN;
			memcpy(area + HEADER, &present, sizeof present);
		}
		return regset(PTRACE_SETREGSET, pid, &host);
	}
	/* The C library hands the word of a PEEK back as the result; the system call writes it. */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long word;

		if (syscall(SYS_ptrace, (long)request, pid, addr, &word) < 0)
			return -1;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, (long)request, pid, addr, data);
}
