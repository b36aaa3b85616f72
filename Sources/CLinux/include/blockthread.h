/* Naming the calling thread, which Glibc's module leaves out. */
#pragma once

void apus_name_block_thread(void);
