#define _GNU_SOURCE
#include "CLinux.h"
#include <sys/mman.h>

int apus_memfd_create(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

#include <sys/prctl.h>
int apus_name_thread(const char *name) { return prctl(PR_SET_NAME, name, 0, 0, 0); }
