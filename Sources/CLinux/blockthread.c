#define _GNU_SOURCE
#include "CLinux.h"

void apus_name_block_thread(void) { (void)pthread_setname_np(pthread_self(), "block-io"); }
