#include "agent/vm/kvm_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>

namespace bunker::agent {

#if defined(__x86_64__)
namespace {

struct Capability {
  int number;
  const char* name;
};

// What QEMU's microvm and a stock Linux guest count on.
constexpr Capability kNeeded[] = {
    {KVM_CAP_USER_MEMORY, "USER_MEMORY"},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "DESTROY_MEMORY_REGION_WORKS"},
    {KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, "JOIN_MEMORY_REGIONS_WORKS"},
    {KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR"},
    {KVM_CAP_EXT_CPUID, "EXT_CPUID"},
    {KVM_CAP_MP_STATE, "MP_STATE"},
    {KVM_CAP_IRQCHIP, "IRQCHIP"},
    {KVM_CAP_PIT2, "PIT2"},
    {KVM_CAP_IRQFD, "IRQFD"},
    {KVM_CAP_IOEVENTFD, "IOEVENTFD"},
    {KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK"},
    {KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"},
    {KVM_CAP_XSAVE, "XSAVE"},
    {KVM_CAP_XCRS, "XCRS"},
    {KVM_CAP_GET_MSR_FEATURES, "GET_MSR_FEATURES"},
    {KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"},
};

// Feature MSRs that QEMU sets on every CPU and dies of where it can't: ARCH_CAPABILITIES and the
// microcode's revision.
constexpr uint32_t kFeatureMsrs[] = {0x10a, 0x8b};

constexpr size_t kGuestBytes = 64 * 1024;
constexpr uint64_t kCodeAt = 0x8000;
constexpr uint64_t kPml4At = 0x1000;
constexpr uint64_t kPdptAt = 0x2000;
constexpr uint64_t kPdAt = 0x3000;
constexpr int64_t kMaxCpuNs = 50'000'000;  // native: ~1 ms

// 1.5 million times round a loop of two instructions, then what a kernel does early on and an
// interpreter tends to lack; then hlt.
constexpr uint8_t kGuestCode[] = {
    0xb9, 0x60, 0xe3, 0x16, 0x00,        // mov ecx, 1500000
    0xff, 0xc9,                          // dec ecx
    0x75, 0xfc,                          // jnz back
    0x31, 0xc0,                          // xor eax, eax
    0x0f, 0xa2,                          // cpuid
    0x0f, 0x20, 0xd8,                    // mov rax, cr3
    0x0f, 0x22, 0xd8,                    // mov cr3, rax
    0xb9, 0x02, 0x01, 0x00, 0xc0,        // mov ecx, KERNEL_GS_BASE
    0x31, 0xc0, 0x31, 0xd2,              // xor eax, eax; xor edx, edx
    0x0f, 0x30,                          // wrmsr
    0xf4,                                // hlt
};

// <linux/kvm.h> gives kvm_cpuid2 and kvm_msrs another size and layout in C++ than in C (an empty
// struct has a byte there), and with it wrong ioctl numbers. These are the kernel's.
struct ListHead {
  uint32_t count;
  uint32_t padding;
};
static_assert(sizeof(ListHead) == 8);

struct CpuidList {
  ListHead head;
  kvm_cpuid_entry2 entries[256];
};

struct MsrList {
  ListHead head;
  kvm_msr_entry entry;
};

constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, ListHead);
constexpr unsigned long kGetMsrs = _IOWR(KVMIO, 0x88, ListHead);
constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, ListHead);
constexpr unsigned long kSetCpuid = _IOW(KVMIO, 0x90, ListHead);
static_assert(kGetSupportedCpuid == 0xc008ae05 && kGetMsrs == 0xc008ae88 &&
              kSetMsrs == 0x4008ae89 && kSetCpuid == 0x4008ae90);

class Steps {
 public:
  explicit Steps(KvmStepReport* report) : report_(report) {}

  bool Run(const char* device) {
    return OpenDevice(device) && CheckCapabilities() && MakeCpu() && SetFeatureMsrs() &&
           LoadGuest() && RunGuest();
  }

 private:
  void Begin(const char* step) { snprintf(report_->step, sizeof(report_->step), "%s", step); }

  bool FailErrno(const char* what) {
    snprintf(report_->detail, sizeof(report_->detail), "%s: %s", what, strerrordesc_np(errno));
    return false;
  }

  bool OpenDevice(const char* device) {
    Begin("open the KVM device");
    kvm_ = open(device, O_RDWR | O_CLOEXEC);
    if (kvm_ < 0) return FailErrno(device);
    const int version = ioctl(kvm_, KVM_GET_API_VERSION, 0);
    if (version == KVM_API_VERSION) return true;
    snprintf(report_->detail, sizeof(report_->detail), "API version %d instead of %d", version,
             KVM_API_VERSION);
    return false;
  }

  bool CheckCapabilities() {
    Begin("the capabilities that a VMM needs");
    for (const Capability& needed : kNeeded) {
      if (ioctl(kvm_, KVM_CHECK_EXTENSION, needed.number) > 0) continue;
      snprintf(report_->detail, sizeof(report_->detail), "%s is missing", needed.name);
      return false;
    }
    return true;
  }

  bool MakeCpu() {
    Begin("make a VM with one CPU");
    vm_ = ioctl(kvm_, KVM_CREATE_VM, 0);
    if (vm_ < 0) return FailErrno("KVM_CREATE_VM");
    if (ioctl(vm_, KVM_SET_TSS_ADDR, 0xfffbd000) < 0) return FailErrno("KVM_SET_TSS_ADDR");
    cpu_ = ioctl(vm_, KVM_CREATE_VCPU, 0);
    if (cpu_ < 0) return FailErrno("KVM_CREATE_VCPU");
    cpuid_.head.count = sizeof(cpuid_.entries) / sizeof(cpuid_.entries[0]);
    if (ioctl(kvm_, kGetSupportedCpuid, &cpuid_) < 0) return FailErrno("read the CPUID");
    if (ioctl(cpu_, kSetCpuid, &cpuid_) < 0) return FailErrno("set the CPUID");
    return true;
  }

  bool SetFeatureMsrs() {
    Begin("set the CPU's feature MSRs");
    for (const uint32_t index : kFeatureMsrs) {
      MsrList msr{};
      msr.head.count = 1;
      msr.entry.index = index;
      if (ioctl(kvm_, kGetMsrs, &msr) != 1) continue;  // this host has no such feature
      const uint64_t value = msr.entry.data;
      if (ioctl(cpu_, kSetMsrs, &msr) == 1) continue;
      snprintf(report_->detail, sizeof(report_->detail),
               "MSR 0x%x reads 0x%llx on the host and cannot be set on a CPU", index,
               static_cast<unsigned long long>(value));
      return false;
    }
    return true;
  }

  bool LoadGuest() {
    Begin("give the guest its memory and 64-bit mode");
    void* memory = mmap(nullptr, kGuestBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0);
    if (memory == MAP_FAILED) return FailErrno("mmap");
    uint8_t* const bytes = static_cast<uint8_t*>(memory);
    memcpy(bytes + kCodeAt, kGuestCode, sizeof(kGuestCode));
    const uint64_t pml4_entry = kPdptAt | 3, pdpt_entry = kPdAt | 3, pd_entry = 0x83;  // 2 MiB page
    memcpy(bytes + kPml4At, &pml4_entry, 8);
    memcpy(bytes + kPdptAt, &pdpt_entry, 8);
    memcpy(bytes + kPdAt, &pd_entry, 8);
    kvm_userspace_memory_region region{};
    region.memory_size = kGuestBytes;
    region.userspace_addr = reinterpret_cast<uint64_t>(memory);
    if (ioctl(vm_, KVM_SET_USER_MEMORY_REGION, &region) < 0) return FailErrno("guest memory");
    kvm_sregs special{};
    if (ioctl(cpu_, KVM_GET_SREGS, &special) < 0) return FailErrno("KVM_GET_SREGS");
    special.cr3 = kPml4At;
    special.cr4 = 1 << 5;                  // PAE
    special.cr0 = 0x80000011;              // PG, ET, PE
    special.efer = (1 << 8) | (1 << 10);   // LME, LMA
    special.cs = {.base = 0, .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1,
                  .dpl = 0, .db = 0, .s = 1, .l = 1, .g = 1, .avl = 0, .unusable = 0, .padding = 0};
    kvm_segment data = special.cs;
    data.selector = 16;
    data.type = 3;
    data.l = 0;
    data.db = 1;
    special.ds = special.es = special.ss = special.fs = special.gs = data;
    if (ioctl(cpu_, KVM_SET_SREGS, &special) < 0) return FailErrno("KVM_SET_SREGS");
    kvm_regs registers{};
    registers.rip = kCodeAt;
    registers.rsp = kGuestBytes - 16;
    registers.rflags = 2;
    if (ioctl(cpu_, KVM_SET_REGS, &registers) < 0) return FailErrno("KVM_SET_REGS");
    return true;
  }

  bool RunGuest() {
    Begin("run 3 million instructions of a 64-bit guest at a CPU's speed");
    snprintf(report_->detail, sizeof(report_->detail), "no end in time");
    const int size = ioctl(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0);
    void* shared = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED,
                        cpu_, 0);
    if (size <= 0 || shared == MAP_FAILED) return FailErrno("map the CPU");
    const kvm_run* const run = static_cast<const kvm_run*>(shared);
    timespec before{}, after{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    int result;
    do {
      result = ioctl(cpu_, KVM_RUN, 0);
    } while (result < 0 && errno == EINTR);
    // CPU time: a busy host must not look like a broken one.
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    if (result < 0) return FailErrno("KVM_RUN");
    if (run->exit_reason != KVM_EXIT_HLT) {
      snprintf(report_->detail, sizeof(report_->detail),
               "the guest stopped with KVM exit reason %u", run->exit_reason);
      return false;
    }
    const int64_t took_ns = (after.tv_sec - before.tv_sec) * int64_t{1'000'000'000} +
                            (after.tv_nsec - before.tv_nsec);
    snprintf(report_->detail, sizeof(report_->detail), "took %lld us of CPU time",
             static_cast<long long>(took_ns / 1000));
    return took_ns < kMaxCpuNs;
  }

  KvmStepReport* const report_;
  CpuidList cpuid_{};
  int kvm_ = -1;
  int vm_ = -1;
  int cpu_ = -1;
};

}  // namespace

void RunKvmSteps(const char* device, KvmStepReport* report) {
  Steps steps(report);
  report->works = steps.Run(device);
}

#else

void RunKvmSteps(const char*, KvmStepReport* report) {
  snprintf(report->step, sizeof(report->step), "know this CPU's architecture");
  snprintf(report->detail, sizeof(report->detail), "only x86-64 is supported");
}

#endif

}  // namespace bunker::agent
