/* Signals as a descriptor, and threads by their number: what Glibc's module does not show. */
#pragma once
#include <stdint.h>

/* Blocks SIGTERM, SIGINT and SIGHUP in the calling thread and all it starts, and returns a signalfd for them, or -1 with errno. */
int apus_ending_signals(void);

/* The calling thread's number. */
int apus_thread_number(void);

/* Processor time of the thread with this number of the calling process, in nanoseconds; 0 where there is none. */
uint64_t apus_thread_nanoseconds(int thread);
