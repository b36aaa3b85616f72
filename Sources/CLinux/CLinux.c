#define _GNU_SOURCE
#include "CLinux.h"
#include <sys/mman.h>

int apus_memfd_create(const char *name) { return memfd_create(name, MFD_CLOEXEC); }
