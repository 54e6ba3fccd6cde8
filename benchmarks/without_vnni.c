// Hides VNNI, and AVX-512 unless WITHOUT_VNNI=avx512, from all that asks the processor.
//
//     cc -shared -fPIC -o without_vnni.so without_vnni.c
//     LD_PRELOAD=./without_vnni.so seq2edge verify BUNDLE
//
// Linux on x86 can make the instruction CPUID fault (arch_prctl ARCH_SET_CPUID); the
// fault is answered with what the processor says, less some bits.

#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012 };
enum { AVX512 = 1 << 16 | 1 << 17 | 1 << 21 | 1 << 28 | 1 << 30 };  // F DQ IFMA CD BW
static const uint32_t AVX512_VL = 1u << 31, AVX512_VNNI = 1u << 11;
static const uint32_t AMX = 1u << 22 | 1u << 24 | 1u << 25;  // BF16, TILE, INT8
static const uint32_t AVX_VNNI = 1u << 4, AVX_VNNI_INT8 = 1u << 4;
static int keeps_avx512;

static long set_cpuid(unsigned long allowed) {
  return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed);
}

static void answer(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *code = (const uint8_t *)registers[REG_RIP];
  uint32_t leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
  (void)info;
  if (code[0] != 0x0f || code[1] != 0xa2) {  // no CPUID: a fault of its own
    signal(number, SIG_DFL);
    return;
  }
  set_cpuid(1);
  __cpuid_count(leaf, part, a, b, c, d);
  set_cpuid(0);
  if (leaf == 7 && part == 0) {
    if (!keeps_avx512) b &= ~(AVX512 | AVX512_VL);
    c &= ~AVX512_VNNI;
    d &= ~AMX;
  }
  if (leaf == 7 && part == 1) {
    a &= ~AVX_VNNI;
    d &= ~AVX_VNNI_INT8;
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
  const char *level = getenv("WITHOUT_VNNI");
  struct sigaction action = {.sa_sigaction = answer,
                             .sa_flags = SA_SIGINFO | SA_NODEFER};
  keeps_avx512 = level && !strcmp(level, "avx512");
  sigaction(SIGSEGV, &action, NULL);
  if (set_cpuid(0)) {
    static const char message[] = "without_vnni: this processor can't make CPUID fault\n";
    if (write(STDERR_FILENO, message, sizeof message - 1)) _exit(1);
    _exit(1);
  }
}
