/* <linux/kvm.h> for the KVM target. Request macros with sizes are re-exported as constants, ioctl families as functions. */
#pragma once
#include <linux/kvm.h>
