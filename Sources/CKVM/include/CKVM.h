/* <linux/kvm.h> for the KVM target. Swift cannot see request macros with sizes, flexible array members or anonymous unions in
 * trailing arrays, so each ioctl family is one function here. All return the ioctl's value, or -1 with errno. */
#pragma once
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

/* system */
int ckvm_api_version(int kvm);
int ckvm_check_extension(int fd, int capability);
/* KVM_ENABLE_CAP without arguments, of a machine or a vCPU. */
int ckvm_enable_capability(int fd, unsigned capability);
int ckvm_create_vm(int kvm);
int ckvm_vcpu_mmap_size(int kvm);
/* Fills at most `count` entries; returns how many there are. */
int ckvm_supported_cpuid(int kvm, struct kvm_cpuid_entry2 *entries, int count);
/* Fills at most `count` MSR numbers; returns how many there are. */
int ckvm_msr_list(int kvm, uint32_t *indices, int count);

/* virtual machine */
int ckvm_set_tss_addr(int vm, unsigned long address);
int ckvm_set_identity_map_addr(int vm, uint64_t address);
int ckvm_create_irqchip(int vm);
int ckvm_create_pit2(int vm, uint32_t flags);
int ckvm_set_memory(int vm, uint32_t slot, uint32_t flags, uint64_t guest, uint64_t bytes, uint64_t host);
int ckvm_create_vcpu(int vm, int id);
int ckvm_irq_line(int vm, uint32_t gsi, int level);
int ckvm_irqfd(int vm, int fd, uint32_t gsi, uint32_t flags);
int ckvm_ioeventfd(int vm, int fd, uint64_t address, uint32_t length, uint32_t flags);
int ckvm_set_routing(int vm, const struct kvm_irq_routing_entry *entries, uint32_t count);
int ckvm_get_irqchip(int vm, struct kvm_irqchip *chip);
int ckvm_set_irqchip(int vm, const struct kvm_irqchip *chip);
int ckvm_get_pit2(int vm, struct kvm_pit_state2 *state);
int ckvm_set_pit2(int vm, const struct kvm_pit_state2 *state);
int ckvm_get_clock(int vm, struct kvm_clock_data *clock);
int ckvm_set_clock(int vm, const struct kvm_clock_data *clock);
/* Tells the guest's watchdogs that this processor was stopped by its host. */
int ckvm_note_paused(int vcpu);

/* processor */
int ckvm_run(int vcpu);
int ckvm_set_cpuid(int vcpu, const struct kvm_cpuid_entry2 *entries, int count);
/* Fixed-size states by number: see the constants below. */
int ckvm_get_state(int vcpu, int what, void *state);
int ckvm_set_state(int vcpu, int what, const void *state);
enum { CKVM_REGS, CKVM_SREGS, CKVM_FPU, CKVM_LAPIC, CKVM_MP_STATE, CKVM_EVENTS, CKVM_DEBUGREGS, CKVM_XCRS, CKVM_XSAVE, CKVM_STATES };
size_t ckvm_state_size(int what);
/* Reads or writes MSRs one list at a time; returns how many worked. */
int ckvm_get_msrs(int vcpu, struct kvm_msr_entry *entries, int count);
int ckvm_set_msrs(int vcpu, const struct kvm_msr_entry *entries, int count);
/* Thousands of cycles a second of this processor's time stamp counter; setting one that the host cannot do fails. */
int ckvm_get_tsc_khz(int vcpu);
int ckvm_set_tsc_khz(int vcpu, uint32_t khz);
/* What a guest that is a hypervisor itself has KVM keep: up to `count` bytes; returns how many, 0 where KVM keeps none. */
int ckvm_get_nested(int vcpu, void *state, uint32_t count);
int ckvm_set_nested(int vcpu, const void *state, uint32_t count);
/* Where an MMIO read's answer goes in kvm_run: inside an anonymous union, whose offsets Swift's key paths do not know. */
static inline size_t ckvm_mmio_data_offset(void) { return offsetof(struct kvm_run, mmio.data); }

/* Directs the kick signal at one thread; its handler does nothing, so that KVM_RUN returns EINTR. */
int ckvm_install_kick_handler(void);
int ckvm_kick_thread(int thread);
/* Lets the kick reach the calling thread, whatever mask its creator (or the program that executed us) had; returns its id. */
int ckvm_prepare_thread(void);
