/* Prints signal frames as Linux makes them: name, address, alternate stack, bytes. frames.txt is what it printed on Linux 6.18:
   gcc -O1 -static -o frames frames.c; for n in plain alt autodisarm fault suspend; do ./frames $n; done >frames.txt */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/auxv.h>
static char stk[65536] __attribute__((aligned(4096)));
static char alt[65536] __attribute__((aligned(4096)));
unsigned long entry_sp;
void handler_asm(void);
void restorer(void);
asm(".text\n.globl handler_asm\nhandler_asm:\n"
    "mov %rsp, entry_sp(%rip)\n"
    "sub $8, %rsp\n"          /* keep ABI alignment: entry rsp+8 is a multiple of 16 */
    "call handler_c\n"
    "hlt\n"
    ".globl restorer\nrestorer:\n mov $15,%eax\n syscall\n");
struct ksa { void (*h)(void); unsigned long fl; void (*r)(void); unsigned long mask; };
static const char *name;
static unsigned long altsp, altsize;
void handler_c(void) {
  char *f = (char *)entry_sp;
  unsigned long fp = *(unsigned long *)(f + 8 + 40 + 23 * 8);
  unsigned size = *(unsigned *)(fp + 464 + 16);
  unsigned long n = fp - entry_sp + size + 4;
  printf("%s %lx %lx %lx ", name, entry_sp, altsp, altsize);
  for (unsigned long i = 0; i < n; i++) printf("%02x", (unsigned char)f[i]);
  printf("\n");
  fflush(stdout);
  _exit(0);
}
static void install(int sig, unsigned long fl, unsigned long mask) {
  struct ksa a = {handler_asm, fl | 0x04000000, restorer, mask};
  if (syscall(SYS_rt_sigaction, sig, &a, 0, 8)) abort();
}
static void trigger(void) {
  long pid = getpid();
  asm volatile(
    "lea 32768(%0), %%rsp\n"
    "mov $0x3333333333333333, %%rbx\n mov $0x4444444444444444, %%rbp\n"
    "mov $0x5555555555555555, %%r12\n mov $0x6666666666666666, %%r13\n"
    "mov $0x7777777777777777, %%r14\n mov $0x0123456789abcdef, %%r15\n"
    "mov $0x8888888888888888, %%r8\n mov $0x9999999999999999, %%r9\n mov $0x1010101010101010, %%r10\n"
    "movq %%r12, %%xmm3\n movq %%r15, %%xmm15\n"
    "mov %1, %%rdi\n mov %1, %%rsi\n mov $10, %%edx\n mov $234, %%eax\n syscall\n hlt\n"
    :: "r"(stk), "r"(pid) : "memory");
  __builtin_unreachable();
}
static void fault(void) {
  asm volatile(
    "lea 32768(%0), %%rsp\n"
    "mov $0x3333333333333333, %%rbx\n mov $0x4444444444444444, %%rbp\n"
    "mov $0x5555555555555555, %%r12\n mov $0x6666666666666666, %%r13\n"
    "mov $0x7777777777777777, %%r14\n mov $0x0123456789abcdef, %%r15\n"
    "mov $0x8888888888888888, %%r8\n mov $0x9999999999999999, %%r9\n mov $0x1010101010101010, %%r10\n"
    "mov $0x18, %%edx\n std\n movl $1, (%%rdx)\n hlt\n"
    :: "r"(stk) : "memory");
  __builtin_unreachable();
}
static void suspend(void) {
  unsigned long m = 0x200000; /* block 22 while suspended */
  asm volatile(
    "lea 32768(%0), %%rsp\n"
    "mov $0x3333333333333333, %%rbx\n mov $0x4444444444444444, %%rbp\n"
    "mov $0x5555555555555555, %%r12\n mov $0x6666666666666666, %%r13\n"
    "mov $0x7777777777777777, %%r14\n mov $0x0123456789abcdef, %%r15\n"
    "mov $0x8888888888888888, %%r8\n mov $0x9999999999999999, %%r9\n mov $0x1010101010101010, %%r10\n"
    "mov %1, %%rdi\n mov $8, %%esi\n mov $130, %%eax\n syscall\n hlt\n"
    :: "r"(stk), "r"(&m) : "memory");
  __builtin_unreachable();
}
int main(int c, char **v) {
  name = v[1];
  memset(stk, 0, sizeof stk);
  memset(alt, 0, sizeof alt);
  if (!strcmp(name, "plain")) { install(10, SA_SIGINFO, 0); trigger(); }
  if (!strcmp(name, "alt") || !strcmp(name, "autodisarm")) {
    stack_t s = {alt, strcmp(name, "alt") ? (int)0x80000000 : 0, sizeof alt};
    if (syscall(SYS_sigaltstack, &s, 0)) abort();
    altsp = (unsigned long)alt; altsize = sizeof alt;
    install(10, SA_SIGINFO | SA_ONSTACK, 0x40); trigger(); }
  if (!strcmp(name, "fault")) { install(11, SA_SIGINFO, 0); fault(); }
  if (!strcmp(name, "suspend")) {
    unsigned long m = 0x8000000000000200; /* 10 and 64 blocked */
    install(10, SA_SIGINFO, 0);
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &m, 0, 8);
    syscall(SYS_tgkill, getpid(), getpid(), 10);
    suspend();
  }
  return 1;
}
