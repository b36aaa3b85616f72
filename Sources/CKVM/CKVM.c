#define _GNU_SOURCE
#include "CKVM.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int ckvm_api_version(int kvm) { return ioctl(kvm, KVM_GET_API_VERSION, 0); }
int ckvm_check_extension(int fd, int capability) { return ioctl(fd, KVM_CHECK_EXTENSION, (long)capability); }
int ckvm_enable_capability(int fd, unsigned capability)
{
    struct kvm_enable_cap enable = {.cap = capability};
    return ioctl(fd, KVM_ENABLE_CAP, &enable);
}
int ckvm_create_vm(int kvm) { return ioctl(kvm, KVM_CREATE_VM, 0); }
int ckvm_vcpu_mmap_size(int kvm) { return ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0); }

int ckvm_supported_cpuid(int kvm, struct kvm_cpuid_entry2 *entries, int count)
{
    struct kvm_cpuid2 *list = calloc(1, sizeof *list + count * sizeof *entries);
    if (!list) return -1;
    list->nent = count;
    int result = ioctl(kvm, KVM_GET_SUPPORTED_CPUID, list);
    if (result == 0) { result = list->nent; memcpy(entries, list->entries, list->nent * sizeof *entries); }
    free(list);
    return result;
}

int ckvm_msr_list(int kvm, uint32_t *indices, int count)
{
    struct kvm_msr_list *list = calloc(1, sizeof *list + count * sizeof *indices);
    if (!list) return -1;
    list->nmsrs = count;
    int result = ioctl(kvm, KVM_GET_MSR_INDEX_LIST, list);
    if (result == 0) { result = list->nmsrs; memcpy(indices, list->indices, list->nmsrs * sizeof *indices); }
    free(list);
    return result;
}

int ckvm_set_tss_addr(int vm, unsigned long address) { return ioctl(vm, KVM_SET_TSS_ADDR, address); }
int ckvm_set_identity_map_addr(int vm, uint64_t address) { return ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &address); }
int ckvm_create_irqchip(int vm) { return ioctl(vm, KVM_CREATE_IRQCHIP, 0); }
int ckvm_create_pit2(int vm, uint32_t flags)
{
    struct kvm_pit_config config = { .flags = flags };
    return ioctl(vm, KVM_CREATE_PIT2, &config);
}
int ckvm_set_memory(int vm, uint32_t slot, uint32_t flags, uint64_t guest, uint64_t bytes, uint64_t host)
{
    struct kvm_userspace_memory_region region = { slot, flags, guest, bytes, host };
    return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}
int ckvm_create_vcpu(int vm, int id) { return ioctl(vm, KVM_CREATE_VCPU, (long)id); }
int ckvm_irq_line(int vm, uint32_t gsi, int level)
{
    struct kvm_irq_level line = { .irq = gsi, .level = level };
    return ioctl(vm, KVM_IRQ_LINE, &line);
}
int ckvm_irqfd(int vm, int fd, uint32_t gsi, uint32_t flags)
{
    struct kvm_irqfd irqfd = { .fd = fd, .gsi = gsi, .flags = flags };
    return ioctl(vm, KVM_IRQFD, &irqfd);
}
int ckvm_ioeventfd(int vm, int fd, uint64_t address, uint32_t length, uint32_t flags)
{
    struct kvm_ioeventfd event = { .addr = address, .len = length, .fd = fd, .flags = flags };
    return ioctl(vm, KVM_IOEVENTFD, &event);
}
int ckvm_set_routing(int vm, const struct kvm_irq_routing_entry *entries, uint32_t count)
{
    struct kvm_irq_routing *table = calloc(1, sizeof *table + count * sizeof *entries);
    if (!table) return -1;
    table->nr = count;
    memcpy(table->entries, entries, count * sizeof *entries);
    int result = ioctl(vm, KVM_SET_GSI_ROUTING, table);
    free(table);
    return result;
}
int ckvm_get_irqchip(int vm, struct kvm_irqchip *chip) { return ioctl(vm, KVM_GET_IRQCHIP, chip); }
int ckvm_set_irqchip(int vm, const struct kvm_irqchip *chip) { return ioctl(vm, KVM_SET_IRQCHIP, chip); }
int ckvm_get_pit2(int vm, struct kvm_pit_state2 *state) { return ioctl(vm, KVM_GET_PIT2, state); }
int ckvm_set_pit2(int vm, const struct kvm_pit_state2 *state) { return ioctl(vm, KVM_SET_PIT2, state); }
int ckvm_get_clock(int vm, struct kvm_clock_data *clock) { return ioctl(vm, KVM_GET_CLOCK, clock); }
int ckvm_set_clock(int vm, const struct kvm_clock_data *clock) { return ioctl(vm, KVM_SET_CLOCK, clock); }
int ckvm_note_paused(int vcpu) { return ioctl(vcpu, KVM_KVMCLOCK_CTRL, 0); }

int ckvm_run(int vcpu) { return ioctl(vcpu, KVM_RUN, 0); }
int ckvm_set_cpuid(int vcpu, const struct kvm_cpuid_entry2 *entries, int count)
{
    struct kvm_cpuid2 *list = calloc(1, sizeof *list + count * sizeof *entries);
    if (!list) return -1;
    list->nent = count;
    memcpy(list->entries, entries, count * sizeof *entries);
    int result = ioctl(vcpu, KVM_SET_CPUID2, list);
    free(list);
    return result;
}

static const struct { unsigned long get, set; size_t size; } states[CKVM_STATES] = {
    [CKVM_REGS] = { KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs) },
    [CKVM_SREGS] = { KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs) },
    [CKVM_FPU] = { KVM_GET_FPU, KVM_SET_FPU, sizeof(struct kvm_fpu) },
    [CKVM_LAPIC] = { KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state) },
    [CKVM_MP_STATE] = { KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state) },
    [CKVM_EVENTS] = { KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events) },
    [CKVM_DEBUGREGS] = { KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs) },
    [CKVM_XCRS] = { KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs) },
    [CKVM_XSAVE] = { KVM_GET_XSAVE, KVM_SET_XSAVE, sizeof(struct kvm_xsave) },
};
size_t ckvm_state_size(int what) { return what >= 0 && what < CKVM_STATES ? states[what].size : 0; }
int ckvm_get_state(int vcpu, int what, void *state)
{
    if (what < 0 || what >= CKVM_STATES) { errno = EINVAL; return -1; }
    return ioctl(vcpu, states[what].get, state);
}
int ckvm_set_state(int vcpu, int what, const void *state)
{
    if (what < 0 || what >= CKVM_STATES) { errno = EINVAL; return -1; }
    return ioctl(vcpu, states[what].set, state);
}
static int msrs(int vcpu, unsigned long request, struct kvm_msr_entry *entries, int count, int copy_back)
{
    struct kvm_msrs *list = calloc(1, sizeof *list + count * sizeof *entries);
    if (!list) return -1;
    list->nmsrs = count;
    memcpy(list->entries, entries, count * sizeof *entries);
    int result = ioctl(vcpu, request, list);
    if (result > 0 && copy_back) memcpy(entries, list->entries, result * sizeof *entries);
    free(list);
    return result;
}
int ckvm_get_msrs(int vcpu, struct kvm_msr_entry *entries, int count) { return msrs(vcpu, KVM_GET_MSRS, entries, count, 1); }
int ckvm_set_msrs(int vcpu, const struct kvm_msr_entry *entries, int count)
{
    return msrs(vcpu, KVM_SET_MSRS, (struct kvm_msr_entry *)entries, count, 0);
}

int ckvm_get_tsc_khz(int vcpu) { return ioctl(vcpu, KVM_GET_TSC_KHZ, 0); }
int ckvm_set_tsc_khz(int vcpu, uint32_t khz) { return ioctl(vcpu, KVM_SET_TSC_KHZ, (unsigned long)khz); }
int ckvm_get_nested(int vcpu, void *state, uint32_t count)
{
    struct kvm_nested_state *nested = state;
    if (count < sizeof *nested) return 0;
    memset(state, 0, count);
    nested->size = count;
    return ioctl(vcpu, KVM_GET_NESTED_STATE, nested) == 0 ? (int)nested->size : -1;
}
int ckvm_set_nested(int vcpu, const void *state, uint32_t count)
{
    if (count < sizeof(struct kvm_nested_state) || ((const struct kvm_nested_state *)state)->size != count) { errno = EINVAL; return -1; }
    return ioctl(vcpu, KVM_SET_NESTED_STATE, state);
}

static void nothing(int signal) { (void)signal; }
int ckvm_install_kick_handler(void)
{
    struct sigaction action = { .sa_handler = nothing };     /* no SA_RESTART: KVM_RUN must return */
    sigemptyset(&action.sa_mask);
    return sigaction(SIGRTMIN + 1, &action, 0);
}
int ckvm_kick_thread(int thread) { return syscall(SYS_tgkill, getpid(), thread, SIGRTMIN + 1); }
int ckvm_prepare_thread(void)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, SIGRTMIN + 1);
    pthread_sigmask(SIG_UNBLOCK, &kick, 0);
    return syscall(SYS_gettid);
}
